"""How the dashboard words things: states, marks, rates, the status bar and the tabs.

Pure. Names that come from elsewhere pass `name` here, and nowhere else becomes text.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

from app import words
from app.tui.cells import SPARKS, Cell, Span, Text, text
from core.api import ArenaPath, Jobs, MarkRow, Status
from core.paths import display
from core.types import FileState, Kind, Mark


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the dashboard knows of the engine now; None: not asked yet."""

    status: Status | None = None
    jobs: Jobs | None = None
    marks: tuple[MarkRow, ...] | None = None
    rates: tuple[float, ...] = ()
    peer_rates: tuple[tuple[str, tuple[float, ...]], ...] = ()
    now_ns: int = 0


def name(raw: bytes | str) -> str:
    """Return a name for the screen: control and bidirectional characters visible."""
    return display(raw)


def path_text(at: ArenaPath) -> str:
    """Return ``arena/path`` for the screen."""
    return name(at.arena) + ("/" + name(at.path) if at.path else "")


def base_name(at: ArenaPath) -> str:
    """Return the last component for the screen; the arena's name for the arena itself."""
    return name(at.path.rpartition(b"/")[2]) if at.path else name(at.arena)


def state_cell(state: FileState) -> Cell:
    """Return glyph and word of a state in its colour; glyphs take two cells, so that words align."""
    glyph = words.glyph(state)
    return text(glyph + " " * (3 - cell_len(glyph)) + words.word(state), state.value)


def mark_cell(mark: Mark, explicit: bool) -> Cell:
    """Return a mark: bold where it is set, dim where it is inherited."""
    return text(mark.value, "mark|bold" if explicit else "dim")


def size_cell(n: int) -> Cell:
    """Return a size."""
    return text(words.human_bytes(n))


def held_cell(held: int, size: int) -> Cell:
    """Return how much of ``size`` bytes is here, as bytes and share, or ``all`` or ``–``."""
    if size <= 0:
        return text("–", "dim")
    if held >= size:
        return text("all", "ok")
    if held <= 0:
        return text("–", "dim")
    share = held * 100 // size
    return Text(((words.human_bytes(held), ""), (f" {share:2d}%" if share else " <1%", "dim")))


def rate_text(rate: float) -> str:
    """Return a rate, ``–`` for none."""
    return words.human_rate(rate) if rate >= 1 else "–"


def kind_glyph(kind: Kind, expanded: bool) -> str:
    """Return what stands before a name in the tree."""
    if kind == Kind.DIR:
        return "▾ " if expanded else "▸ "
    return "→ " if kind == Kind.SYMLINK else "  "


def clock(at_ns: int) -> str:
    """Return the local time of day of an event; "" for 0, not known."""
    if not at_ns:
        return ""
    at = datetime.datetime.fromtimestamp(at_ns / 1e9, tz=datetime.UTC).astimezone()
    return f"{at:%H:%M:%S}"


def plural(n: int, noun: str) -> str:
    """Return ``1 file``, ``2 files``."""
    if n == 1:
        return f"1 {noun}"
    return f"{n} {noun[:-1]}ies" if noun.endswith("y") else f"{n} {noun}s"


def only_here(status: Status) -> int:
    """Return how many files exist on this host alone."""
    return sum(arena.only_here for arena in status.arenas)


def spark(values: Sequence[float], width: int) -> str:
    """Return a sparkline of the newest values, exactly ``width`` cells."""
    newest = values[-width:]
    peak = max(newest, default=0.0)
    if peak <= 0:
        return "▁" * len(newest)
    return "".join(SPARKS[1 + min(7, int(v / peak * 7.999))] if v > 0 else "▁" for v in newest)


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of the status bar, and a shorter one; the greatest ``rank`` is shortened and dropped first."""

    rank: int
    long: tuple[Span, ...]
    short: tuple[Span, ...] = ()


def status_spans(snapshot: Snapshot, title: str, width: int, problem: str = "") -> tuple[Span, ...]:
    """Return the status bar, at most ``width`` cells: what matters least is shortened, then dropped."""
    if problem:
        return ((" ✖ ", "bad"), (problem, "bad"))
    status = snapshot.status
    if status is None:
        return ((" " + name(title), "bold"), ("  waiting for the engine …", "dim"))
    trend = snapshot.rates[-12:]
    pieces = [
        Piece(6, ((name(title), "bold"),)),
        _peers(status),
        _rates(status),
        Piece(8, ((spark(trend, 12), "accent"),) if any(trend) else ()),
        _cache(status),
        _idle(status),
        _safe(status),
        _conflicts(status),
        _health(status),
    ]
    return ((" ", ""), *_fit([piece for piece in pieces if piece.long], width - 1))


def _fit(pieces: list[Piece], width: int) -> tuple[Span, ...]:
    """Join the pieces that fit, the most important first, each as long as there is room for."""
    ranked = sorted(pieces, key=lambda piece: piece.rank)
    shown = {id(piece): piece.short or piece.long for piece in ranked}
    while len(shown) > 1 and _length(list(shown.values())) > width:
        shown.pop(id(ranked.pop()))
    for piece in ranked:
        longer = shown | {id(piece): piece.long}
        if _length(list(longer.values())) <= width:
            shown = longer
    spans: list[Span] = []
    for piece in pieces:
        if id(piece) in shown:
            spans += [(" │ ", "trough")] if spans else []
            spans += shown[id(piece)]
    return tuple(spans)


def _length(texts: Sequence[tuple[Span, ...]]) -> int:
    return sum(cell_len(part) for spans in texts for part, _ in spans) + 3 * (len(texts) - 1)


def _peers(status: Status) -> Piece:
    up = sum(peer.state == "connected" for peer in status.peers)
    if not status.peers:
        return Piece(1, (("no peers", "dim"),))
    tone = "ok" if up == len(status.peers) else "warn" if up else "bad"
    count = (f"{'●' if up else '○'} {up}/{len(status.peers)}", tone)
    return Piece(1, (count, (" peers up", "")), (count,))


def _rates(status: Status) -> Piece:
    down = sum(peer.rx_rate for peer in status.peers)
    up = sum(peer.tx_rate for peer in status.peers)
    tones = ["" if rate >= 1 else "dim" for rate in (down, up)]
    return Piece(
        4,
        (("↓ ", "accent"), (rate_text(down), tones[0]), ("  ↑ ", "accent"), (rate_text(up), tones[1])),
        (("↓", "accent"), (_tight(down), tones[0]), (" ↑", "accent"), (_tight(up), tones[1])),
    )


def _tight(rate: float) -> str:
    return words.human_bytes(int(rate)).replace(" ", "").removesuffix("B") if rate >= 1 else "–"


def _cache(status: Status) -> Piece:
    used = sum(arena.cache.used for arena in status.arenas)
    limits = [arena.cache.max for arena in status.arenas]
    if not limits:
        return Piece(5, ())
    if None in limits:
        return Piece(5, (("cache ", "dim"), (words.human_bytes(used), "")))
    most = sum(limit or 0 for limit in limits)
    tone = "warn" if most and used > most * 0.95 else ""
    return Piece(5, (("cache ", "dim"), (f"{words.human_bytes(used)}/{words.human_bytes(most)}", tone)))


def _idle(status: Status) -> Piece:
    if status.idle:
        return Piece(3, (("idle", "dim"),))
    return Piece(3, ((name(status.waiting_for) or "busy", "info"),), (("busy", "info"),))


def _safe(status: Status) -> Piece:
    alone = only_here(status)
    if alone:
        return Piece(2, ((f"⏳ {alone} only here", "only_here"),), ((f"⏳ {alone}", "only_here"),))
    return Piece(2, (("✔ safe to leave", "ok"),) if status.arenas else (), (("✔ safe", "ok"),))


def _conflicts(status: Status) -> Piece:
    count = sum(arena.conflicts for arena in status.arenas)
    if not count:
        return Piece(0, ())
    return Piece(0, ((f"⚠ {plural(count, 'conflict')}", "conflict"),), ((f"⚠ {count}", "conflict"),))


def _health(status: Status) -> Piece:
    offline = [arena.name for arena in status.arenas if arena.offline]
    if offline:
        return Piece(0, ((f"✖ {name(offline[0])} offline", "bad"),))
    return Piece(0, ((f"⚠ {name(status.health[0])}", "warn"),) if status.health else ())


TAB_WORDS = {
    "arenas": ("Arenas", "Arn"),
    "connections": ("Connections", "Con"),
    "churten": ("Churten", "Chu"),
    "marks": ("Marks", "Mrk"),
    "activity": ("Activity", "Act"),
}


def tab_labels(badges: dict[str, str], focused: str, width: int) -> tuple[tuple[str, str], ...]:
    """Return pane and label of each tab, short enough for ``width``: full, shortened, numbers alone."""

    def labels(full: bool, full_focused: bool, with_badges: bool) -> tuple[tuple[str, str], ...]:
        out = []
        for number, (pane, (long, short)) in enumerate(TAB_WORDS.items(), 1):
            word = long if full or (full_focused and pane == focused) else short
            badge = badges.get(pane, "") if with_badges else ""
            out.append((pane, f" {number} {word}{' ' + badge if badge else ''} "))
        return tuple(out)

    for choice in ((True, True, True), (True, True, False), (False, True, True), (False, True, False)):
        tabs = labels(*choice)
        if sum(cell_len(label) for _, label in tabs) <= width:
            return tabs
    return tuple((pane, f" {n} ") if pane != focused else (pane, f" {n} {TAB_WORDS[pane][0]} ")
                 for n, pane in enumerate(TAB_WORDS, 1))  # fmt: skip


def badges_of(snapshot: Snapshot) -> dict[str, str]:
    """Return what the tabs say beside the names: what needs a look."""
    badges: dict[str, str] = {}
    if snapshot.status is not None:
        peers = snapshot.status.peers
        if peers:
            badges["connections"] = f"{sum(p.state == 'connected' for p in peers)}/{len(peers)}"
        conflicts = sum(arena.conflicts for arena in snapshot.status.arenas)
        if conflicts:
            badges["activity"] = f"⚠{conflicts}"
    if snapshot.jobs is not None:
        jobs = snapshot.jobs
        busy = jobs.active + jobs.queued
        badges["churten"] = " ".join(
            filter(None, (f"↓{busy}" if busy else "", f"✖{jobs.failed}" if jobs.failed else ""))
        )
    return badges
