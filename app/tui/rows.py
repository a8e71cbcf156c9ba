"""The columns of each pane, and how a value becomes a row of them.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from app import words
from app.tui import present
from app.tui.cells import BLANK, Bar, Cell, Column, Fill, Row, Spark, Text, text
from app.tui.journal import Line
from app.tui.tree import Node, Notice, TreeRow
from core.api import ArenaPath, ArenaStatus, Entry, HashingRow, JobRow, Jobs, MarkRow, PeerStatus
from core.events import JobAction
from core.states import state_with_contents
from core.types import FileState, Kind

# Arenas

TREE_COLUMNS = (
    Column("name", "Name", 16, rank=0, flex=5, sortable=True),
    Column("state", "State", 14, rank=1, sortable=True),
    Column("size", "Size", 7, rank=2, align="right", sortable=True),
    Column("held", "Held", 11, rank=4, align="right", sortable=True),
    Column("mark", "Mark", 6, rank=3, sortable=True),
    Column("holders", "Holders", 14, rank=5, flex=1),
)

Progress = Mapping[ArenaPath, JobRow]
"""Active downloads by path."""


def tree_row(row: TreeRow, *, marked: bool, progress: Progress, arena: ArenaStatus | None) -> Row:
    """Return the row of something in the tree."""
    if isinstance(row, Notice):
        indent = "  " * row.depth
        return Row((row.parent.at, "notice"), (text(f"{indent}  {row.text}", "dim"), *(BLANK,) * 5))
    if row.entry is None:
        return _arena_row(row, arena, marked)
    return entry_row(row.entry, _label(row), row, marked=marked, progress=progress)


def _label(node: Node) -> Text:
    assert node.entry is not None
    kind = present.kind_glyph(node.entry.kind, node.expanded)
    label = present.base_name(node.at)
    if node.entry.kind == Kind.SYMLINK and node.entry.target:
        label += f" → {present.name(node.entry.target)}"
    tone = "bold" if node.entry.kind == Kind.DIR else ""
    return Text((("  " * node.depth + kind, "dim"), (label, tone)))


def _arena_row(node: Node, status: ArenaStatus | None, marked: bool) -> Row:
    label = Text(
        ((present.kind_glyph(Kind.DIR, node.expanded), "accent"), (present.base_name(node.at), "accent|bold"))
    )
    if status is None:
        return Row(node.at, (label, *(BLANK,) * 5), marked)
    size = node.usage.bytes if node.usage else status.bytes
    return Row(
        node.at,
        (
            label, _arena_state(status), present.size_cell(size), _usage_held(node),
            text(status.mark, "mark"),
            text(present.plural(status.files, "file"), "dim"),
        ),
        marked,
    )  # fmt: skip


def _arena_state(status: ArenaStatus) -> Cell:
    if status.offline:
        return text("✖  offline", "bad")
    if status.held_deletes:
        return text(f"⚠  {status.held_deletes} held", "warn")
    if status.conflicts:
        return text(f"⚠  {present.plural(status.conflicts, 'conflict')}", "conflict")
    if status.hashing:
        return text("#  hashing", "info")
    if status.only_here:
        return text(f"⏳ {status.only_here} only here", "only_here")
    return text("●  in sync" if status.files else "○  empty", "dim")


def _usage_held(node: Node) -> Cell:
    return present.held_cell(node.held, node.size) if node.usage is not None else text("…", "dim")


def _shown_state(entry: Entry, node: Node | None) -> FileState:
    """Return the state of an entry; of a directory that of what is in it, once that is known."""
    if entry.conflict or entry.kind != Kind.DIR or node is None or node.usage is None:
        return words.shown_state(entry)
    return state_with_contents(entry.state, entry.mark, node.size, node.held)


def entry_row(entry: Entry, label: Text, node: Node | None, *, marked: bool, progress: Progress) -> Row:
    """Return the row of an entry; ``node`` None in the list of what a search found."""
    at = ArenaPath(entry.arena, entry.path)
    job = progress.get(at)
    size: Cell = present.size_cell(entry.size)
    held = present.held_cell(entry.held, entry.size)
    if entry.kind == Kind.DIR:
        known = node is not None and node.usage is not None
        size = (
            present.size_cell(node.size) if known and node is not None else text("…" if node else "", "dim")
        )
        held = _usage_held(node) if node is not None else BLANK
    elif entry.kind == Kind.SYMLINK:
        size, held = BLANK, BLANK
    if job is not None:
        held = Bar(_fraction(job), "fetching")
    return Row(
        at,
        (
            label, present.state_cell(_shown_state(entry, node)), size, held,
            present.mark_cell(entry.mark, entry.mark_explicit),
            text(", ".join(map(present.name, entry.holders)), "dim"),
        ),
        marked,
    )  # fmt: skip


def found_row(entry: Entry, *, marked: bool, progress: Progress) -> Row:
    """Return the row of something that a search found: its whole path."""
    at = ArenaPath(entry.arena, entry.path)
    parent, _, base = present.path_text(at).rpartition("/")
    label = Text(((parent + "/", "dim"), (base, "bold" if entry.kind == Kind.DIR else "")), path=True)
    return entry_row(entry, label, None, marked=marked, progress=progress)


# Connections

PEER_COLUMNS = (
    Column("peer", "Peer", 11, rank=0, flex=1),
    Column("state", "State", 14, rank=1, flex=1),
    Column("rtt", "RTT", 7, rank=4, align="right"),
    Column("down", "↓ Rate", 8, rank=2, align="right"),
    Column("up", "↑ Rate", 8, rank=3, align="right"),
    Column("spark", "", 12, rank=6),
    Column("seen", "Last seen", 13, rank=5),
    Column("address", "Address", 18, rank=8, flex=1),
    Column("arenas", "Arenas", 12, rank=7, flex=1),
)

_PEER_STATES = {
    "connected": ("●", "ok"),
    "connecting": ("◌", "info"),
    "disconnected": ("○", "warn"),
    "disabled": ("✖", "dim"),
}


def peer_row(peer: PeerStatus, history: tuple[float, ...], now_ns: int) -> Row:
    """Return the row of a peer; the reason is shown when it is not connected."""
    glyph, tone = _PEER_STATES[peer.state]
    state: list[tuple[str, str]] = [(f"{glyph} {peer.state}", tone)]
    away = bool(peer.reason) and peer.state != "connected"
    if away:
        state.append((f"  {present.name(peer.reason)}", "dim"))
        if peer.last_seen_ns is not None:
            state.append((f", seen {_seen(peer, now_ns)}", "dim"))
    if peer.clock_skew_s is not None and abs(peer.clock_skew_s) >= 5:
        state.append((f"  ⚠ clock {words.human_duration(peer.clock_skew_s)} off", "warn"))
    return Row(
        peer.name,
        (
            text(present.name(peer.name), "bold"), Text(tuple(state), wide=away),
            text(f"{peer.rtt_ms:.1f} ms" if peer.rtt_ms is not None else "–", "" if peer.rtt_ms else "dim"),
            _rate_cell(peer.rx_rate), _rate_cell(peer.tx_rate), Spark(history),
            text(_seen(peer, now_ns), "dim"),
            text(present.name(peer.address) if peer.address else "deaf", "" if peer.address else "dim"),
            text(", ".join(map(present.name, peer.arenas)), "dim"),
        ),
    )  # fmt: skip


def _rate_cell(rate: float) -> Cell:
    return text(present.rate_text(rate), "" if rate >= 1 else "dim")


def _seen(peer: PeerStatus, now_ns: int) -> str:
    if peer.state == "connected":
        return "now"
    return words.ago(peer.last_seen_ns, now_ns) if peer.last_seen_ns is not None else "never"


def peer_details(peer: PeerStatus, now_ns: int) -> tuple[tuple[str, str], ...]:
    """Return all that is known of a peer, as names and values."""
    return (
        ("state", peer.state + (f": {present.name(peer.reason)}" if peer.reason else "")),
        ("address", present.name(peer.address) if peer.address else "none: it connects to us (deaf)"),
        ("fingerprint", present.name(peer.fingerprint) or "not known"),
        ("round-trip", f"{peer.rtt_ms:.1f} ms" if peer.rtt_ms is not None else "–"),
        ("received", f"{words.human_bytes(peer.rx_bytes)}, now {present.rate_text(peer.rx_rate)}"),
        ("sent", f"{words.human_bytes(peer.tx_bytes)}, now {present.rate_text(peer.tx_rate)}"),
        ("arenas", ", ".join(map(present.name, peer.arenas)) or "none shared"),
        ("last seen", _seen(peer, now_ns)),
        ("clock", f"{peer.clock_skew_s:+.1f} s" if peer.clock_skew_s is not None else "–"),
    )


# Churten

JOB_COLUMNS = (
    Column("path", "Transfer", 20, rank=0, flex=3),
    Column("action", "Action", 9, rank=4),
    Column("progress", "Progress", 14, rank=1, flex=1),
    Column("bytes", "Bytes", 15, rank=5, align="right"),
    Column("rate", "Rate", 8, rank=2, align="right"),
    Column("eta", "ETA", 8, rank=3, align="right"),
    Column("peers", "From → to", 14, rank=6, flex=1),
)

_ACTION_GLYPHS: dict[JobAction, str] = {
    "hash": "#", "download": "↓", "verify": "=", "realize": "■", "unrealize": "●", "evict": "○",
    "delete": "✖", "rename": "→",
}  # fmt: skip


def jobs_rows(jobs: Jobs, history: tuple[float, ...]) -> tuple[Row, ...]:
    """Return the totals, the hashing, and a row per job: active, then queued and waiting, then failed."""
    if not (jobs.rows or jobs.hashing or jobs.active or jobs.queued or jobs.failed):
        return ()
    order = {"active": 0, "waiting": 2, "queued": 1, "failed": 3}
    rows = sorted(jobs.rows, key=lambda job: order[job.state])
    return (
        _totals_row(jobs, history),
        *(_hashing_row(row) for row in jobs.hashing),
        *(job_row(job) for job in rows),
        *_rest(jobs),
    )


def job_counts(jobs: Jobs) -> str:
    """Return how many jobs there are in each state."""
    waiting = sum(row.state == "waiting" for row in jobs.rows)
    queued = max(0, jobs.queued - waiting)
    counts = [(jobs.active, "active"), (queued, "queued"), (waiting, "waiting"), (jobs.failed, "failed")]
    return ", ".join(f"{count} {word}" for count, word in counts if count)


def _totals_row(jobs: Jobs, history: tuple[float, ...]) -> Row:
    active = [row for row in jobs.rows if row.state == "active"]
    done, total = sum(row.bytes_done for row in active), sum(row.bytes_total for row in active)
    eta = (total - done) / jobs.rate if jobs.rate >= 1 else None
    state = ("▶ all active", "ok|bold") if jobs.running else ("■ stopped", "warn|bold")
    return Row(
        "totals",
        (
            Text((state,)),
            BLANK,
            Spark(history),
            _bytes_cell(done, total),
            _rate_cell(jobs.rate),
            _eta_cell(eta),
            BLANK,
        ),
    )


def _hashing_row(row: HashingRow) -> Row:
    done = row.bytes_done / row.bytes_total if row.bytes_total else None
    files = f"  {row.files_done}/{present.plural(row.files_total, 'file')}"
    label = Text((("# ", "info"), (present.name(row.arena), "bold"), (files, "dim")))
    return Row(
        ("hashing", row.arena),
        (label, text("hash", "info"), Bar(done, "info"), _bytes_cell(row.bytes_done, row.bytes_total), BLANK,
         _eta_cell(row.eta_s), text("here", "dim")),
    )  # fmt: skip


def job_key(job: JobRow) -> object:
    """Return what a row of the pane is known by; only what runs has a number."""
    return ("job", job.job or job.at)


def job_row(job: JobRow) -> Row:
    """Return the row of a job; a job that does not run shows why instead of its progress."""
    parent, _, base = present.path_text(job.at).rpartition("/")
    tone = _JOB_TONES[job.state]
    peers = f"{', '.join(map(present.name, job.peers))} → here" if job.peers else ""
    glyph = f"{_ACTION_GLYPHS[job.action]} " + (f"{job.files}× " if job.files > 1 else "")
    label = Text(((glyph, tone), (parent + "/" if parent else "", "dim"), (base, "")), path=True, lead=1)
    return Row(
        job_key(job),
        (
            Fill(_fraction(job) or 0.0, label) if job.state == "active" else label,
            text(job.action, tone), _progress(job), _bytes_cell(job.bytes_done, job.bytes_total),
            _rate_cell(job.rate), _eta_cell(job.eta_s), text(peers, "dim"),
        ),
    )  # fmt: skip


_JOB_TONES = {"active": "fetching", "queued": "dim", "waiting": "warn", "failed": "bad"}


def _progress(job: JobRow) -> Cell:
    again = f", again in {words.human_duration(job.retry_s)}" if job.retry_s is not None else ""
    match job.state:
        case "active":
            return Bar(_fraction(job), "fetching")
        case "queued":
            return text("queued", "dim")
        case "waiting":
            return Text(((f"waits: {present.name(job.reason)}{again}", "warn"),), wide=True)
        case "failed":
            return Text(((f"failed: {present.name(job.reason)}{again}", "bad"),), wide=True)


def _fraction(job: JobRow) -> float | None:
    return job.bytes_done / job.bytes_total if job.bytes_total else None


def _bytes_cell(done: int, total: int) -> Cell:
    if not total:
        return BLANK
    return Text(((words.human_bytes(done), ""), (f" / {words.human_bytes(total)}", "dim")))


def _eta_cell(eta_s: float | None) -> Cell:
    return text(
        words.human_duration(int(eta_s)) if eta_s is not None else "–", "" if eta_s is not None else "dim"
    )


def _rest(jobs: Jobs) -> tuple[Row, ...]:
    hidden = jobs.active + jobs.queued + jobs.failed - len(jobs.rows)
    return (Row("rest", (text(f"… and {hidden} more", "dim"), *(BLANK,) * 6)),) if hidden > 0 else ()


# Marks

MARK_COLUMNS = (
    Column("path", "Path", 18, rank=0, flex=3, sortable=True),
    Column("mark", "Mark", 6, rank=1, sortable=True),
    Column("files", "Files", 6, rank=3, align="right", sortable=True),
    Column("held", "Held", 8, rank=4, align="right", sortable=True),
    Column("wanted", "Wanted", 8, rank=5, align="right", sortable=True),
    Column("share", "", 12, rank=2, flex=1),
)


def mark_row(row: MarkRow, *, marked: bool = False) -> Row:
    """Return the row of an explicit mark."""
    parent, _, base = present.path_text(row.at).rpartition("/")
    share: Cell = (
        Bar(row.bytes_held / row.bytes_wanted, "kept") if row.bytes_wanted else text("as used", "dim")
    )
    if not row.exists:
        share = text("not there yet", "dim")
    elif not row.files:
        share = text("no files", "dim")
    return Row(
        row.at,
        (
            Text(((parent + "/" if parent else "", "dim"), (base, "")), path=True),
            present.mark_cell(row.mark, explicit=True), text(str(row.files)),
            present.size_cell(row.bytes_held),
            present.size_cell(row.bytes_wanted) if row.bytes_wanted else text("–", "dim"), share,
        ),
        marked,
    )  # fmt: skip


# Activity

LINE_COLUMNS = (
    Column("time", "Time", 8, rank=2),
    Column("kind", "What", 10, rank=1),
    Column("text", "", 20, rank=0, flex=1),
)


def line_row(line: Line, key: object) -> Row:
    """Return the row of a line of the activity pane, its next step beside it."""
    spans = [(line.text, line.tone)]
    if line.hint:
        spans.append((f"  → {line.hint}", "dim"))
    kind = ("⚠ " if line.kind == "conflict" else "") + line.kind
    return Row(
        key, (text(present.clock(line.at_ns), "dim"), text(kind, line.tone or "info"), Text(tuple(spans)))
    )
