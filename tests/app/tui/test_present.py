"""Words and figures of the status bar, the tabs, the rows and the journal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.cells import cell_len

from app.tui.actions import COMMANDS, PANES, Facts, footer_of
from app.tui.cells import Row
from app.tui.journal import Journal, changes_of
from app.tui.palette import relevance
from app.tui.present import Snapshot, held_cell, status_spans, tab_labels
from app.tui.rows import jobs_rows, peer_row, tree_row
from app.tui.tree import Node
from core import events as ev
from core.api import ArenaPath, ArenaStatus, CacheUse, ChurtenStatus, JobRow, Jobs, PeerStatus, Status

ARENA = ArenaStatus("docs", "watch", 10, 5, 3, 2, 1 << 30, CacheUse(1 << 20, 1 << 30), 0, 0, 0)
PEER = PeerStatus("nas", "connected", "nas:9771", 1.0, 0, 0, 0.0, 0.0, ("docs",))


def status(arena: ArenaStatus = ARENA, *, idle: bool = True, peer: PeerStatus = PEER) -> Status:
    return Status(
        1, "laptop", "kilo", "0.1", None, idle, (arena,), (peer,), ChurtenStatus(True, 0, 0, 0),
        waiting_for="" if idle else "3 transfers",
    )  # fmt: skip


def bar(state: Status | None, width: int = 120) -> str:
    return "".join(part for part, _ in status_spans(Snapshot(status=state), "laptop", width))


def test_the_status_bar_says_whether_it_is_safe_to_leave() -> None:
    assert "✔ safe to leave" in bar(status())
    alone = msgspec.structs.replace(ARENA, only_here=2)
    assert "⏳ 2 only here" in bar(status(alone))
    assert "safe" not in bar(status(alone))


def test_the_status_bar_says_what_is_waited_for_and_what_is_wrong() -> None:
    assert "idle" in bar(status())
    assert "3 transfers" in bar(status(idle=False))
    assert "docs offline" in bar(status(msgspec.structs.replace(ARENA, offline="datadir is missing")))
    assert "⚠ 1 conflict" in bar(status(msgspec.structs.replace(ARENA, conflicts=1)))
    assert "waiting for the engine" in bar(None)


@pytest.mark.parametrize("width", range(12, 140, 4))
def test_the_status_bar_fits_and_keeps_what_matters_most(width: int) -> None:
    text = bar(status(msgspec.structs.replace(ARENA, conflicts=1, only_here=2), idle=False), width)
    assert cell_len(text) <= width
    assert "⚠ 1" in text
    if width >= 20:
        assert "● 1/1" in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("focused", PANES)
def test_tabs_fit_and_the_focused_one_is_whole(width: int, focused: str) -> None:
    labels = tab_labels({"churten": "↓12 ✖3", "activity": "⚠1"}, focused, width)
    assert [pane for pane, _ in labels] == list(PANES)
    assert sum(cell_len(label) for _, label in labels) <= width
    assert focused.capitalize() in dict(labels)[focused]


def cells_text(row: Row) -> str:
    return str(row.cells)


def test_hostile_names_are_made_visible_everywhere() -> None:
    evil = "e\x1b[2J\u202e\nl"
    peer = msgspec.structs.replace(
        PEER, name=evil, reason=evil, address=evil, arenas=(evil,), state="disconnected"
    )
    shown = [peer_row(peer, (), 0)]
    job = JobRow(1, ArenaPath(evil, evil.encode()), "download", "failed", 1, 0, 5, 0.0, None, (evil,), evil)
    shown += jobs_rows(Jobs(True, 0, 0, 1, 0.0, (job,), ()), ())
    arena = msgspec.structs.replace(ARENA, name=evil)
    shown.append(tree_row(Node(ArenaPath(evil), 0), marked=False, progress={}, arena=arena))
    texts = [part for row in shown for cell in row.cells for part in _spans(cell)]
    journal = Journal()
    journal.take([
        ev.PeerChanged(peer=evil, state="disconnected", reason=evil),
        ev.FileChanged(arena=evil, path=evil.encode(), what="added", peer=evil),
        ev.ConflictChanged(arena=evil, path=evil.encode(), peers=(evil,)),
        ev.Evicted(arena=evil, path=evil.encode(), bytes_freed=1, reason=evil),
        ev.ArenaChanged(arena=evil, online=False, reason=evil),
        ev.Warned(arena=evil, text=evil, hint=evil),
        ev.MarkChanged(arena=evil, path=evil.encode(), mark=evil),
        ev.HashingProgress(arena=evil, files_done=1, files_total=1, bytes_done=1, bytes_total=1),
        ev.JobChanged(job=1, arena=evil, path=evil.encode(), action="download", phase="failed", reason=evil),
    ])  # fmt: skip
    assert len(journal.lines) == 9
    texts += [line.text + line.hint for line in (*journal.lines, *journal.conflicts.values())]
    assert any("\\x1b" in text for text in texts)
    assert not any(char in text for text in texts for char in "\x1b\u202e\n")


@pytest.mark.parametrize(
    ("skew_s", "text"),
    [
        (30 * 365 * 86_400.0, "⚠ clock 10950 d 0 h off"),
        (-30 * 365 * 86_400.0, "⚠ clock -10950 d 0 h off"),
        (4, ""),
    ],
)
def test_a_peer_whose_clock_is_years_off_is_warned_about(skew_s: float, text: str) -> None:
    row = peer_row(msgspec.structs.replace(PEER, clock_skew_s=skew_s), (), 0)
    shown = "".join(part for cell in row.cells for part in _spans(cell))
    assert text in shown
    assert bool(text) is ("clock" in shown)


JOB: dict[str, Any] = {"job": 1, "arena": "docs", "path": b"a", "action": "unrealize", "bytes_total": 2048}


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        (ev.HashingProgress(arena="docs", files_done=3, files_total=3, bytes_done=1, bytes_total=1),
         "hashed", "3 files of docs"),
        (ev.JobChanged(**JOB, phase="finished"), "unrealize", "docs/a (2.0 K)"),
        (ev.JobChanged(**JOB | {"action": "verify"}, phase="finished"), "verify", "docs/a (2.0 K)"),
        (ev.JobChanged(**JOB, phase="failed", reason="no", retry_s=5), "failed", "no, again in 5"),
        (ev.JobChanged(**JOB, phase="cancelled"), "unrealize", "cancelled"),
        (ev.PeerChanged(peer="anna", state="connected"), "peer", "anna is connected"),
        (ev.FileChanged(arena="docs", path=b"a", what="replaced", peer="anna"), "replaced", "docs/a by anna"),
        (ev.FileChanged(arena="docs", path=b"a", what="removed", peer="anna"), "removed", "docs/a by anna"),
        (ev.FileChanged(arena="docs", path=b"b", what="renamed", origin=b"a"), "renamed", "docs/a → docs/b"),
        (ev.FileChanged(arena="docs", path=b"a", what="damaged", cause="disk"), "damaged", "docs/a"),
        (ev.FileChanged(arena="docs", path=b"a", what="repaired", cause="user"), "repaired", "docs/a"),
        (ev.FilesChanged(arena="docs", paths=(b"a", b"b"), what="unrealized"), "unrealized", "a and 1 more"),
        (ev.ConflictChanged(arena="docs", path=b"a", peers=("anna",)), "conflict", "docs/a"),
        (ev.ConflictChanged(arena="docs", path=b"a", peers=(), revived=True), "revived", "docs/a"),
        (ev.ConflictChanged(arena="docs", path=b"a", peers=(), resolved=True), "resolved", "docs/a"),
        (ev.MarkChanged(arena="docs", path=b"a", mark="keep"), "mark", "docs/a: keep"),
        (ev.Evicted(arena="docs", path=b"a", bytes_freed=2048, reason="room"), "evicted", "2.0 K freed"),
        (ev.ChurtenChanged(running=False), "churten", "stopped"),
        (ev.ArenaChanged(arena="docs", online=False, reason="gone"), "arena", "docs is offline: gone"),
        (ev.Warned(arena="docs", text="too few watches", hint="sysctl"), "warning", "docs: too few watches"),
    ],
)  # fmt: skip
def test_every_event_is_a_line_of_the_activity(event: ev.AnyEvent, kind: str, text: str) -> None:
    journal = Journal()
    assert journal.take([event])
    (line,) = journal.lines
    assert (line.kind, text in line.text) == (kind, True), line


def _spans(cell: object) -> list[str]:
    inner = getattr(cell, "text", cell)
    return [part for part, _ in getattr(inner, "spans", ())]


@pytest.mark.parametrize(
    ("held", "size", "expected"),
    [(0, 100, "–"), (100, 100, "all"), (0, 0, "–"), (1, 1 << 30, " <1%"), (1 << 29, 1 << 30, "50%")],
)
def test_held_is_said_in_bytes_and_share(held: int, size: int, expected: str) -> None:
    assert expected in "".join(_spans(held_cell(held, size)))


def test_every_event_is_either_a_line_or_shown_elsewhere_and_says_what_is_old() -> None:
    changes = changes_of([
        ev.TreeChanged(arena="docs", directories=(b"a", b"b")),
        ev.TreeChanged(arena="music"),
        ev.JobChanged(job=1, arena="docs", path=b"x", action="download", phase="progress"),
    ])  # fmt: skip
    assert changes.directories == {ArenaPath("docs", b"a"), ArenaPath("docs", b"b")}
    assert changes.arenas == {"music"}
    assert changes.jobs
    assert not changes.reset
    assert changes_of([ev.Reset()]).reset


def test_many_alike_events_are_one_line_and_the_journal_is_bounded() -> None:
    journal = Journal()
    journal.take(ev.FileChanged(arena="docs", path=b"d/%d" % n, what="added", peer="nas") for n in range(500))
    assert [line.text for line in journal.lines] == ["500 files in docs/d"]
    for n in range(5_000):
        journal.take([ev.PeerChanged(peer=f"p{n}", state="connected")])
    assert len(journal.lines) == 2_000


def test_binding_ids_are_unique_and_no_key_means_two_things_in_a_pane() -> None:
    ids = [command.id for command in COMMANDS]
    assert len(ids) == len(set(ids))
    for pane in PANES:
        keys = [
            key for command in COMMANDS if not command.panes or pane in command.panes
            for key in command.keys.split(",")
        ]  # fmt: skip
        assert len(keys) == len(set(keys)), pane


def test_what_cannot_act_says_why() -> None:
    reasons = {command.id: reason for command, reason in footer_of(Facts(pane="connections"))}
    assert reasons["peer.connect"] == "no peer is chosen"
    assert reasons["app.help"] == ""
    connected = {c.id: why for c, why in footer_of(Facts(pane="connections", on="peer", peer=PEER))}
    assert connected["peer.connect"] == "nas is connected"
    assert connected["peer.disconnect"] == ""
    deaf = msgspec.structs.replace(PEER, state="disconnected", address=None)
    away = {c.id: why for c, why in footer_of(Facts(pane="connections", on="peer", peer=deaf))}
    assert "no address" in away["peer.connect"]


def test_the_palette_prefers_beginnings_of_words_and_ignores_scattered_letters() -> None:
    assert relevance("insur", "Connections: Close a connection and refuse the peer") == 0
    assert relevance("lease", "docs/contracts/lease.pdf") > relevance("lease", "docs/release.txt") > 0
    assert relevance("sort col", "Sort by the next column") > 0
