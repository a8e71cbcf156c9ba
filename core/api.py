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
    held_deletes: int = 0
    """Deleted files that wait for `Api.arena_confirm_deletes`."""


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

    ``origin`` None: the arena's default from the config. ``exists`` False: the path is marked for when it
    comes; ``hint`` offers the nearest names then.
    """

    mark: Mark
    explicit: bool
    origin: ArenaPath | None
    exists: bool = True
    hint: str = ""


class MarkRow(msgspec.Struct, frozen=True):
    """An explicit mark and what it covers; ``exists`` False: the path is marked for when it comes."""

    at: ArenaPath
    mark: Mark
    files: int
    bytes_held: int
    bytes_wanted: int
    exists: bool = True


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


TrashReason = Literal["replaced", "deleted", "damaged"]


class TrashRow(msgspec.Struct, frozen=True):
    """A content that was replaced or deleted here and is still held.

    ``size``, ``mtime_ns`` and ``mode`` are of the file that it was; ``by`` names the host whose change it
    was, "" if that is not known.
    """

    at: ArenaPath
    hash: bytes
    size: int
    mtime_ns: int
    mode: int
    when_ns: int
    why: TrashReason
    by: str


class Restored(msgspec.Struct, frozen=True):
    """What came of one path of `Api.trash_restore`; ``error`` "" if it is back."""

    at: ArenaPath
    size: int
    error: str = ""


class ConflictVersion(msgspec.Struct, frozen=True):
    """One version of a path in conflict. ``peers`` hold it, ``here``: this host does.

    ``kind`` `Kind.NONE`: it is a deletion.
    """

    peers: tuple[str, ...]
    here: bool
    shown: bool
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    hash: bytes | None
    target: bytes = b""


class ConflictRow(msgspec.Struct, frozen=True):
    """A path with several versions, none of which descends from the others.

    ``revived``: the others are deletions only; the change won, and the user may want to know.
    """

    at: ArenaPath
    revived: bool
    versions: tuple[ConflictVersion, ...]


class Resolved(msgspec.Struct, frozen=True):
    """What `Api.conflict_resolve` did; ``beside`` are the paths that other versions were put at."""

    at: ArenaPath
    kept: str
    beside: tuple[ArenaPath, ...] = ()


class LogLine(msgspec.Struct, frozen=True):
    """One line of the audit log; ``before`` and ``after`` are content hashes in hex.

    ``detail`` holds what only some lines have: the mark, the reason, the peers of a conflict.
    """

    at_ns: int
    at: ArenaPath
    what: str
    cause: str = ""
    peer: str = ""
    before: str | None = None
    after: str | None = None
    detail: str = ""


VerifyOutcome = Literal["ok", "changed", "repaired", "damaged", "unreadable"]


class VerifyStep(msgspec.Struct, frozen=True):
    """One file or cached content that `Api.verify` has read.

    *changed*: the file is being changed, its hash follows. *damaged*: the content is wrong and could not
    be repaired, ``detail`` says why. ``path`` of ``at`` is ``b""`` for content of no path. ``files_total``
    and ``bytes_total`` are what was to be read when it began.
    """

    at: ArenaPath
    outcome: VerifyOutcome
    bytes: int
    detail: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int


class EvictStep(msgspec.Struct, frozen=True):
    """What came of one file of `Api.evict`: bytes freed, or the ``error`` why it stays."""

    at: ArenaPath
    bytes_freed: int
    error: str = ""
    hint: str = ""


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
        """Return the effective mark of a path that exists, or that has a mark of its own."""
        ...

    async def mark_apply(self, changes: Sequence[MarkChange]) -> tuple[MarkChange, ...]:
        """Set or remove explicit marks, all or none; returns the changes that undo it.

        A path that does not exist can be marked: the mark holds when it comes.

        Raises:
            PathNotFoundError: there is neither such a path nor a mark to remove.
            NotADirError: the path is below a file.
        """
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

    async def trash_list(self, at: ArenaPath | None = None) -> tuple[TrashRow, ...]:
        """Return what is in the trash of a path and below it, of all arenas for None; the newest first."""
        ...

    async def trash_restore(self, at: ArenaPath, *, content: bytes = b"") -> tuple[Restored, ...]:
        """Put content from the trash back as a new version; what is there now goes to the trash.

        ``content`` is the beginning of the hash of the version meant, ``b""`` the newest. Of a directory
        that is not in the trash itself, everything below it comes back that is not there now.

        Raises:
            PathReadOnlyError: the arena has no datadir here.
            PathNotFoundError: nothing of the path is in the trash.
        """
        ...

    async def conflicts(self, at: ArenaPath | None = None) -> tuple[ConflictRow, ...]:
        """Return the paths in conflict at and below a path, of all arenas for None."""
        ...

    async def conflict_resolve(self, at: ArenaPath, keep: str) -> Resolved:
        """End a conflict: ``keep`` is a peer's name, ``local``, or ``both``.

        Writes a version that descends from all. What was here and is not kept goes to the trash.

        Raises:
            UsageError: the path is in no conflict, or that peer holds no version of it.
            NoHolderError: nobody who is connected holds the version to keep.
        """
        ...

    def log(
        self, at: ArenaPath | None = None, *, since_ns: int = 0, follow: bool = False
    ) -> AsyncIterator[list[LogLine]]:
        """Read the audit log in the order of time, of a path and below it or of all arenas.

        An async generator of batches. With ``follow`` it goes on for ever with what happens.
        """
        ...

    def verify(self, at: ArenaPath | None = None, *, repair: bool = True) -> AsyncIterator[VerifyStep]:
        """Read local content again and compare it with its version; what is wrong is fetched again.

        An async generator; a step for each file or cached content. The damaged bytes of a real file go to
        the trash once it is repaired.
        """
        ...

    def evict(self, paths: Sequence[ArenaPath]) -> AsyncIterator[EvictStep]:
        """Give up the cached content of files, and of all below directories.

        An async generator; a step for each file of which something was held. Content is given up only
        when a peer that is connected confirms to hold it.
        """
        ...

    async def arena_confirm_deletes(self, name: str) -> int:
        """Let deletions that are held go on; returns how many files, 0 if none were held."""
        ...

    def events(self) -> AsyncIterator[list[AnyEvent]]:
        """Follow the event stream: batches, for ever. An async generator.

        After a `core.events.Reset` the caller reads the state again.
        """
        ...
