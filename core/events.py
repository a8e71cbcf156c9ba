"""The one typed event stream of a daemon (spec 4 §Events).

Events are frozen values that cross threads and the control socket. Paths are bytes relative to the
arena. Every event carries the wall clock ``at_ns`` at which it was made, for display only.
The fan-out, `EventBus`, resets a slow subscriber instead of waiting for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import msgspec
import trio


class Event(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """Base of all events."""

    at_ns: int = 0


class HashingProgress(Event, frozen=True, tag=True):
    """How far a scan or the hashing queue is. ``files_done == files_total`` ends it."""

    arena: str
    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    eta_s: float | None = None


JobPhase = Literal["queued", "started", "progress", "finished", "failed", "cancelled"]
JobAction = Literal["hash", "download", "verify", "realize", "unrealize", "evict", "delete", "rename"]


class JobChanged(Event, frozen=True, tag=True):
    """A job was made, moved on or ended. ``rate`` in bytes/s (EWMA), ``reason`` for a failure."""

    job: int
    arena: str
    path: bytes
    action: JobAction
    phase: JobPhase
    bytes_done: int = 0
    bytes_total: int = 0
    files: int = 1
    rate: float = 0.0
    eta_s: float | None = None
    peers: tuple[str, ...] = ()
    reason: str = ""
    retry_s: float | None = None


class PeerChanged(Event, frozen=True, tag=True):
    """A connection went up or down. ``state`` as in ``status --json``; ``reason`` when down."""

    peer: str
    state: Literal["connected", "connecting", "disconnected", "disabled"]
    reason: str = ""


class TreeChanged(Event, frozen=True, tag=True):
    """Entries of these directories changed: names, metadata, state or marks.

    An empty ``directories`` means that anything in the arena may have changed.
    """

    arena: str
    directories: tuple[bytes, ...] = ()


FileChange = Literal[
    "added",
    "replaced",
    "removed",
    "renamed",
    "available",
    "unrealized",
    "dropped",
    "meta",
    "damaged",
    "repaired",
]
"""What happened to a file; *available*: its content is now cached here, *unrealized*: it was a real file
here and is cached content now, *dropped*: not any more, it went to the trash or was lost; *damaged*,
*repaired*: it has not, has again, the content of its version."""


class FileChanged(Event, frozen=True, tag=True):
    """A file changed, here (``peer`` "") or because of a peer.

    ``cause`` is ``user``, ``peer``, ``mark``, ``quota`` or, for damage, ``disk``; "" when nothing was done
    to files here, or what was done is told again with its hash (`FilesChanged`). ``before`` and ``after``
    are content hashes.
    """

    arena: str
    path: bytes
    what: FileChange
    peer: str = ""
    cause: str = ""
    before: bytes | None = None
    after: bytes | None = None
    origin: bytes = b""
    """Its path before it was renamed."""


class FilesChanged(Event, frozen=True, tag=True):
    """Many files changed in the same way at once; ``paths`` and ``contents`` are parallel.

    ``contents`` holds the hash after the change, ``befores`` the one before; each is empty where there is
    none, and has ``b""`` for what is not known; ``origins``: paths before a rename. ``peer`` is whose
    change it was, if it was a peer's.
    """

    arena: str
    what: FileChange
    paths: tuple[bytes, ...]
    contents: tuple[bytes, ...] = ()
    befores: tuple[bytes, ...] = ()
    origins: tuple[bytes, ...] = ()
    cause: str = ""
    peer: str = ""


class ConflictChanged(Event, frozen=True, tag=True):
    """A conflict was found or resolved; ``revived``: a deletion lost against a change."""

    arena: str
    path: bytes
    peers: tuple[str, ...]
    resolved: bool = False
    revived: bool = False


class MarkChanged(Event, frozen=True, tag=True):
    """An explicit mark was set, or removed (``mark`` None)."""

    arena: str
    path: bytes
    mark: str | None


class Evicted(Event, frozen=True, tag=True):
    """Cached content was given up; ``content`` is its hash, ``cause`` as in `FileChanged`."""

    arena: str
    path: bytes
    bytes_freed: int
    reason: str
    content: bytes = b""
    cause: str = "quota"


class QuotaChanged(Event, frozen=True, tag=True):
    """Cache use of an arena changed noticeably; bytes."""

    arena: str
    used: int
    max: int | None


class ChurtenChanged(Event, frozen=True, tag=True):
    """Churten was started or stopped."""

    running: bool


class ArenaChanged(Event, frozen=True, tag=True):
    """An arena went offline (``reason`` says why) or came back (``reason`` "")."""

    arena: str
    online: bool
    reason: str = ""


class Warned(Event, frozen=True, tag=True):
    """Something needs attention. ``hint`` is what to do next."""

    arena: str
    text: str
    hint: str = ""


class Reset(Event, frozen=True, tag=True):
    """The subscriber was too slow and missed events: read the current state again."""


AnyEvent = (
    HashingProgress
    | JobChanged
    | PeerChanged
    | TreeChanged
    | FileChanged
    | FilesChanged
    | ConflictChanged
    | MarkChanged
    | Evicted
    | QuotaChanged
    | ChurtenChanged
    | ArenaChanged
    | Warned
    | Reset
)

BACKLOG = 10_000
"""LIMIT: events waiting for one subscriber before it is reset."""


class Subscription:
    """One subscriber's queue; an async iterator of batches, engine thread only."""

    def __init__(self) -> None:
        """Make an empty queue."""
        self._queue: deque[AnyEvent] = deque()
        self._wake = trio.Event()

    def put(self, event: AnyEvent) -> None:
        """Queue an event; a full queue becomes a single `Reset`."""
        if len(self._queue) >= BACKLOG:
            self._queue.clear()
            event = Reset(at_ns=event.at_ns)
        self._queue.append(event)
        self._wake.set()

    async def batches(self) -> AsyncIterator[list[AnyEvent]]:
        """Yield all events that wait, at least one at a time, for ever."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            batch = list(self._queue)
            self._queue.clear()
            if batch:
                yield batch


class EventBus:
    """Fan-out of events to subscribers. Engine thread only; never waits."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        """Make a bus that stamps events with ``now_ns()``."""
        self._now_ns = now_ns
        self._subscriptions: set[Subscription] = set()
        self._taps: list[Callable[[AnyEvent], None]] = []

    def emit(self, event: AnyEvent) -> None:
        """Stamp ``event`` and hand it to every subscriber."""
        stamped = msgspec.structs.replace(event, at_ns=self._now_ns()) if not event.at_ns else event
        for tap in self._taps:
            tap(stamped)
        for subscription in self._subscriptions:
            subscription.put(stamped)

    def tap(self, callback: Callable[[AnyEvent], None]) -> None:
        """Call ``callback`` with every event, in the engine thread; it must be quick (audit, metrics)."""
        self._taps.append(callback)

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Give a subscription for the time of the context."""
        subscription = Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
