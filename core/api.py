"""The one interface between users' programs (dashboard, command line) and the engine.

Implemented in-process by `core.engine` and over the control socket by `net.control`. All methods run
in a trio loop; the dashboard reaches them through `app.bridge`. Values are frozen msgspec structs
that are cheap to send; paths are bytes relative to their arena.

Every method may raise `EngineStoppedError`; those that take a path raise `PathNotFoundError`, with
the nearest names in the hint, when the arena or path does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Literal, Protocol

import msgspec

from core.events import AnyEvent, JobAction
from core.types import FileState, Kind, Mark


class ArenaPath(msgspec.Struct, frozen=True, order=True):
    """A path in an arena; ``path`` ``b""`` is the arena itself."""

    arena: str
    path: bytes = b""


class CacheUse(msgspec.Struct, frozen=True):
    """Bytes on disk used by cached content, and the limit now in force (None: none)."""

    used: int
    max: int | None


class ArenaStatus(msgspec.Struct, frozen=True):
    """One arena in `Status`; counts are of files, ``bytes`` the sum of their sizes."""

    name: str
    mark: str
    files: int
    real: int
    cached: int
    online: int
    bytes: int
    cache: CacheUse
    hashing: int
    conflicts: int
    only_here: int
    offline: str = ""
    """Why the arena is offline (its datadir is missing …), "" when it is not."""


PeerState = Literal["connected", "connecting", "disconnected", "disabled"]


class PeerStatus(msgspec.Struct, frozen=True):
    """One peer in `Status`; rates in bytes/s. The fields after ``arenas`` add to the contract."""

    name: str
    state: PeerState
    address: str | None
    rtt_ms: float | None
    rx_bytes: int
    tx_bytes: int
    rx_rate: float
    tx_rate: float
    arenas: tuple[str, ...]
    fingerprint: str = ""
    reason: str = ""
    last_seen_ns: int | None = None
    clock_skew_s: float | None = None


class ChurtenStatus(msgspec.Struct, frozen=True):
    """Numbers of jobs."""

    running: bool
    active: int
    queued: int
    failed: int


class Status(msgspec.Struct, frozen=True):
    """What ``status --json`` prints, in this order."""

    schema: int
    name: str
    fingerprint: str
    version: str
    mount: str | None
    idle: bool
    arenas: tuple[ArenaStatus, ...]
    peers: tuple[PeerStatus, ...]
    churten: ChurtenStatus
    waiting_for: str = ""
    """What keeps the daemon from being idle, for people; "" when idle."""
    health: tuple[str, ...] = ()
    """What is degraded, one sentence each."""


class Entry(msgspec.Struct, frozen=True):
    """One path as users see it.

    ``held`` is the bytes of its content on this host. ``bytes_done`` is set while fetching.
    For a directory ``size`` and ``held`` are 0 (ask `Api.usage`).
    """

    arena: str
    path: bytes
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    hash: bytes | None
    state: FileState
    mark: Mark
    mark_explicit: bool
    holders: tuple[str, ...]
    conflict: bool
    held: int = 0
    target: bytes = b""


class Page(msgspec.Struct, frozen=True):
    """Some entries of a directory, and whether there are more after them."""

    entries: tuple[Entry, ...]
    more: bool


class Usage(msgspec.Struct, frozen=True):
    """Sums over everything below a directory."""

    files: int
    bytes: int
    held: int


class MarkInfo(msgspec.Struct, frozen=True):
    """The effective mark of a path; ``origin`` is the path it is inherited from (itself if explicit).

    ``origin`` None: the arena's default from the config.
    """

    mark: Mark
    explicit: bool
    origin: ArenaPath | None


class MarkRow(msgspec.Struct, frozen=True):
    """An explicit mark and what it covers; ``missing`` paths are marked before they have content."""

    at: ArenaPath
    mark: Mark
    files: int
    bytes_held: int
    bytes_wanted: int


class MarkEffect(msgspec.Struct, frozen=True):
    """What setting a mark would do."""

    files: int
    bytes_to_fetch: int
    bytes_to_free: int


class MarkChange(msgspec.Struct, frozen=True):
    """An explicit mark to set (None: to remove); what `Api.mark_apply` takes and returns for undo."""

    at: ArenaPath
    mark: Mark | None


class JobRow(msgspec.Struct, frozen=True):
    """A job, or a group of small files moved by one job."""

    job: int
    at: ArenaPath
    action: JobAction
    state: Literal["active", "queued", "waiting", "failed"]
    files: int
    bytes_done: int
    bytes_total: int
    rate: float
    eta_s: float | None
    peers: tuple[str, ...]
    reason: str = ""
    retry_s: float | None = None


class HashingRow(msgspec.Struct, frozen=True):
    """The scan and hashing of an arena, while it goes on."""

    arena: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    eta_s: float | None


class Jobs(msgspec.Struct, frozen=True):
    """What churten and the hashers do now. ``queued`` counts all, ``rows`` holds the first of them."""

    running: bool
    active: int
    queued: int
    failed: int
    rate: float
    rows: tuple[JobRow, ...]
    hashing: tuple[HashingRow, ...]


class GetProgress(msgspec.Struct, frozen=True):
    """A step of `Api.get`. ``error`` "" while it goes well; ``done`` ends one path."""

    at: ArenaPath
    bytes_done: int
    bytes_total: int
    done: bool
    error: str = ""
    no_holder: bool = False


class ArenaInfo(msgspec.Struct, frozen=True):
    """Where an arena is on this host; absolute paths."""

    name: str
    workdir: str
    datadir: str | None
    mountpoint: str | None
    mark: Mark


class Why(msgspec.Struct, frozen=True):
    """Answer of ``why``: lines ``(rule, finding)`` from the mark to the next action."""

    at: ArenaPath
    entry: Entry | None
    lines: tuple[tuple[str, str], ...]


class Api(Protocol):
    """Everything that a user's program can ask of a daemon."""

    async def status(self) -> Status:
        """Return the whole state."""
        ...

    async def wait_idle(self, timeout_s: float) -> Status:
        """Return the status once idle.

        Raises:
            NotYetError: the time is over; the message says what was waited for.
        """
        ...

    async def arenas(self) -> tuple[ArenaInfo, ...]:
        """Return the configured arenas in the order of the config."""
        ...

    async def locate(self, text: bytes, cwd: bytes) -> ArenaPath:
        """Map what a user typed to a path in an arena (spec 3 §Paths): ``ARENA/PATH`` or a path on disk.

        The path need not exist in the arena.

        Raises:
            PathNotFoundError: no arena is meant; the hint offers the nearest names.
        """
        ...

    async def lookup(self, at: ArenaPath) -> Entry:
        """Return the entry of a path."""
        ...

    async def listdir(self, at: ArenaPath, *, after: bytes = b"", limit: int = 1000) -> Page:
        """Return entries of a directory in the order of their names, those after the name ``after``."""
        ...

    async def search(self, query: str, *, arena: str | None = None, limit: int = 200) -> tuple[Entry, ...]:
        """Return entries whose path matches fuzzily (characters in order, best first)."""
        ...

    async def usage(self, at: ArenaPath) -> Usage:
        """Return sums over a directory; cheap enough to ask for each visible row."""
        ...

    async def why(self, at: ArenaPath) -> Why:
        """Say rule by rule what holds for a path."""
        ...

    async def peers(self) -> tuple[PeerStatus, ...]:
        """Return the configured peers in the order of the config."""
        ...

    async def peer_connect(self, name: str) -> None:
        """Enable a peer and dial it now, if it has an address; does not wait for the outcome.

        Raises:
            PathNotFoundError: no such peer.
        """
        ...

    async def peer_disconnect(self, name: str) -> None:
        """Close both directions and refuse the peer until `peer_connect`."""
        ...

    async def mark_get(self, at: ArenaPath) -> MarkInfo:
        """Return the effective mark."""
        ...

    async def mark_apply(self, changes: Sequence[MarkChange]) -> tuple[MarkChange, ...]:
        """Set or remove explicit marks, all or none; returns the changes that undo it."""
        ...

    async def mark_list(self, arena: str | None = None) -> tuple[MarkRow, ...]:
        """Return the explicit marks."""
        ...

    async def mark_effect(self, changes: Sequence[MarkChange]) -> MarkEffect:
        """Return what `mark_apply` would do."""
        ...

    async def churten_start(self) -> None:
        """Let jobs run; remembered across restarts."""
        ...

    async def churten_stop(self) -> None:
        """Checkpoint and stop all jobs; remembered across restarts."""
        ...

    async def jobs(self, *, limit: int = 200) -> Jobs:
        """Return what is being done and what waits."""
        ...

    async def job_retry(self, at: ArenaPath) -> None:
        """Try failed work on a path again now."""
        ...

    def get(self, paths: Sequence[ArenaPath]) -> AsyncIterator[GetProgress]:
        """Fetch the whole content of files (and of all files in directories) now; yields progress.

        An async generator. Ends when every file has ended with ``done``.
        """
        ...

    def events(self) -> AsyncIterator[list[AnyEvent]]:
        """Follow the event stream: batches, for ever. An async generator.

        After a `core.events.Reset` the caller reads the state again.
        """
        ...
