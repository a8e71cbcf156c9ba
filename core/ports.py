"""What core needs from the layers above it, and what it offers them, as protocols.

`PeerLink` is implemented by ``net`` and used by core; `Household` and `ContentProvider` are
implemented by core and used by ``net``; `app.daemon` plugs them together. Everything here runs in
the engine thread (trio) unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from core.announce import Batch
from core.api import PeerStatus
from core.byteranges import ByteRanges
from core.types import BlockList, Hash, Inode, Kind, Mark, PeerKey, Priority, RelPath, Vector


@dataclass(frozen=True, slots=True)
class LinkStats:
    """Figures of one connection. Rates in bytes/s over the last seconds; ``rtt_s`` None before a ping."""

    rtt_s: float | None
    rx_bytes: int
    tx_bytes: int
    rx_rate: float
    tx_rate: float
    clock_skew_s: float | None


class PeerLink(Protocol):
    """One authenticated connection to a peer. All calls raise `NetError` when it is gone."""

    @property
    def name(self) -> str:
        """The peer's name in our config."""
        ...

    @property
    def key(self) -> PeerKey:
        """The peer's key."""
        ...

    @property
    def arenas(self) -> frozenset[str]:
        """Arenas that we let it see and it lets us see."""
        ...

    def stats(self) -> LinkStats:
        """Return the current figures."""
        ...

    def subscribe(
        self, arena: str, uuid: bytes, seq: int
    ) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Subscribe to the peer's announcements after ``seq`` of history ``uuid`` (``b""``: none seen)."""
        ...

    async def acknowledge(self, arena: str, uuid: bytes, seq: int) -> None:
        """Tell the peer that everything up to ``seq`` is applied and durable."""
        ...

    def read(
        self, arena: str, content: Hash, ranges: ByteRanges, priority: Priority
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[int, memoryview]]]:
        """Read ``ranges`` of a content: pieces ``(offset, data)`` of at most 256 KiB in order.

        The iterator ends after the last byte of ``ranges``. A piece is valid until the next is taken.

        Raises:
            RemoteError: wire code of `ChangedError` when the peer does not hold it any more.
        """
        ...

    def read_many(
        self, arena: str, contents: Sequence[Hash], sizes: Sequence[int]
    ) -> AbstractAsyncContextManager[AsyncIterator[list[tuple[int, bytes | memoryview | None]]]]:
        """Read small contents whole: batches of ``(index, data)``; data None where the peer has none.

        Every index comes exactly once unless the connection fails. Data of another length than
        ``sizes[index]`` is a protocol breach and never yielded.
        """
        ...

    async def read_version(
        self, arena: str, path: RelPath, vector: Vector, offset: int, length: int
    ) -> bytes:
        """Read a part of a file that has no hash yet; at most 1 MiB; short only at its end.

        Raises:
            RemoteError: wire code of `ChangedError` when the file is no longer that version.
        """
        ...

    async def blocks(self, arena: str, content: Hash, first: int, count: int) -> BlockList:
        """Return ``count`` entries of the block list of a content, from ``first``.

        The ``block_bytes`` of the answer is checked by the caller against `block_bytes_for`.
        """
        ...

    async def have(self, arena: str, contents: Sequence[Hash]) -> list[bool]:
        """Say for each content whether the peer holds it whole and verified now."""
        ...

    async def lease(self, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]) -> list[bool]:
        """Ask for each path whether the peer holds that content there durably, and is not giving it up.

        To be asked after this host has noted what it gives up (`core.leases`); the lists are parallel.
        """
        ...


class Household(Protocol):
    """What net tells core about links, and asks for subscribers."""

    def link_up(self, link: PeerLink) -> None:
        """A link is authenticated and has exchanged hellos."""
        ...

    def link_down(self, link: PeerLink, reason: str) -> None:
        """A link is gone; called exactly once for each `link_up`."""
        ...

    def announcements(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
        """Serve a subscription: batches for as long as the subscriber stays. An async generator.

        Net has checked that the peer may see the arena.
        """
        ...

    def acknowledged(self, peer: PeerKey, arena: str, uuid: bytes, seq: int) -> None:
        """A peer has applied our history up to ``seq``. A foreign ``uuid`` is ignored."""
        ...


class OpenContent(Protocol):
    """A content opened for serving. Close it."""

    @property
    def fd(self) -> int:
        """Descriptor to ``pread`` from, in a worker."""
        ...

    @property
    def size(self) -> int:
        """Size of the content in bytes."""
        ...

    def check(self) -> None:
        """Check, after reading, that what was read was still that version.

        Raises:
            ChangedError: the file was changed since it was opened.
        """
        ...

    def close(self) -> None:
        """Release the descriptor; idempotent."""
        ...


class ContentProvider(Protocol):
    """Where net reads what peers ask for. The methods are quick; descriptors are read in workers.

    Only content held whole and verified, or the current version of a real file, is ever served.
    """

    def open_content(self, arena: str, content: Hash) -> OpenContent:
        """Open a content by hash.

        Raises:
            ChangedError: it is not held (any more).
        """
        ...

    def open_version(self, arena: str, path: RelPath, vector: Vector) -> OpenContent:
        """Open a real file at exactly that version, hashed or not.

        Raises:
            ChangedError: the path is not held at that version.
        """
        ...

    async def read_small(self, arena: str, contents: Sequence[Hash]) -> list[bytes | None]:
        """Read many small contents whole (the caller bounds their number); None where not held."""
        ...

    async def blocks(self, arena: str, content: Hash) -> BlockList:
        """Return the whole block list of a content that is held (computed when it was hashed).

        Raises:
            ChangedError: it is not held.
        """
        ...

    def have(self, arena: str, content: Hash) -> bool:
        """Say whether a content is held whole and verified."""
        ...

    async def lease(
        self, peer: PeerKey, arena: str, paths: Sequence[RelPath], contents: Sequence[Hash]
    ) -> list[bool]:
        """Say for each path whether its content is held here on the disk, and not about to be given up.

        ``peer`` is about to give them up on this word.
        """
        ...


class LocalRow(NamedTuple):
    """What the store knows of a real local path; fields as in `Found`. ``hashed``: its hash is known.

    ``marked``: it has an explicit mark, or is known to have the attribute (see `Marked`).
    """

    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    ino: int
    hashed: bool
    unreadable: bool
    target: bytes = b""
    marked: bool = False


class Found(NamedTuple):
    """A path of the datadir that is new or differs from the store. A tuple, for there are many.

    ``size`` is 0 for what is not a file; ``mode`` is the permission bits. ``same_content``: only
    metadata changed, the hash stays. ``hash_from``: the path this file was renamed from; if the
    store's local entry there has the same ino, size and mtime, its hash is this file's, also if
    this file is in the store already, without hash (the scan met the new name first).
    """

    directory: RelPath
    name: bytes
    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    ino: int
    target: bytes = b""
    same_content: bool = False
    hash_from: RelPath | None = None


class Hashed(NamedTuple):
    """The hash of a file whose size, mtime and ino were the same before and after it was read."""

    path: RelPath
    size: int
    mtime_ns: int
    ino: int
    hash: Hash
    blocks: BlockList | None


class Marked(NamedTuple):
    """The attribute ``user.realize.mark`` of a path as it was read, ``b""``: there is none.

    ``path`` may be the root; ``ino`` is of the very file or directory it was read from.
    """

    path: RelPath
    ino: int
    value: bytes


class Unhashed(NamedTuple):
    """A real local file without hash. ``cursor`` is opaque: where `LocalStore.unhashed` goes on."""

    path: RelPath
    size: int
    mtime_ns: int
    ino: int
    cursor: bytes


class LocalStore(Protocol):
    """What the index of a datadir needs of an arena's store. Engine thread; quick keyed SQL.

    Each call is one transaction. Only *real* local entries are meant: not tombstones, blobs or
    what peers announced. Batches are at most about 1000, grouped by directory, parents first.
    """

    def local_children(self, directory: RelPath) -> dict[bytes, LocalRow]:
        """Return the real local entries of a directory, by name; empty if it is not known."""
        ...

    def local_row(self, path: RelPath) -> LocalRow | None:
        """Return the real local entry of one path that is not the root; one keyed lookup."""
        ...

    def left_behind(self) -> list[RelPath]:
        """Return the real local entries whose directory is none any more: nobody has looked for them yet.

        One look at all entries; for scans of the whole datadir.
        """
        ...

    def record(self, found: Sequence[Found]) -> None:
        """Take over paths that were added or changed; a file whose content may differ loses its hash.

        Clears ``unreadable``. A path that equals the store's entry changes nothing. The index removes
        what was below a directory before it records another kind in its place.
        """
        ...

    def renamed(self, found: Found, *, listed: bool = False) -> bool:
        """Move the entry at ``found.hash_from``, and all that is real below a directory, to the new path.

        False, and nothing is changed, unless it is the same file (kind, ino, size, mtime) or directory
        (kind, ino): then the path is to be recorded as any other. What is at the new path already is
        replaced. ``listed``: what is in a directory at the new path is in the store; only what is the same
        there moves, the rest stays and is to be looked for. It keeps its hash; a file is not ``unreadable``
        any more until that is found out again.
        """
        ...

    def remove(self, paths: Sequence[RelPath]) -> None:
        """Make tombstones for paths, with everything below, that are gone; unknown ones are ignored."""
        ...

    def hashed(self, results: Sequence[Hashed]) -> None:
        """Set hashes; a result whose size, mtime or ino is not the entry's is ignored.

        Clears ``unreadable``.
        """
        ...

    def unreadable(self, paths: Sequence[RelPath]) -> None:
        """Flag files that exist and cannot be read; their entries stay as they are."""
        ...

    def unhashed(self, after: bytes | None, limit: int) -> list[Unhashed]:
        """Return files without hash and not flagged unreadable, in any fixed order, after a cursor.

        ``after`` None starts. New files may come before or after the cursor.
        """
        ...

    def local_file_count(self) -> int:
        """Return the number of real local files; kept as a counter or cheap to count."""
        ...

    def marked(self, found: Sequence[Marked]) -> list[RelPath]:
        """Take over attributes: what differs from the last known one was set, or removed, by a user.

        Those without attribute need to be told only where `LocalRow.marked` says so. Paths that are not
        real, or have another inode number, are ignored; so are values that are no mark, and their paths
        are returned.
        """
        ...

    def scanned_ns(self) -> int:
        """Return the wall clock up to which all changes of attributes were seen, 0 at the first start."""
        ...

    def set_scanned_ns(self, at_ns: int) -> None:
        """Remember when the last whole scan began."""
        ...

    def datadir_id(self) -> tuple[int, int] | None:
        """Return device and inode number of the datadir as last set; None at the first start."""
        ...

    def set_datadir_id(self, device: int, ino: int) -> None:
        """Remember which directory is the datadir."""
        ...


class Network(Protocol):
    """What the engine asks of the connections to peers. Engine thread."""

    def status(self) -> Sequence[PeerStatus]:
        """Return a row for each configured peer, in the order of the config."""
        ...

    def connect(self, name: str) -> None:
        """Enable a peer and dial it now if it has an address.

        Raises:
            PathNotFoundError: no such peer.
        """
        ...

    def disconnect(self, name: str) -> None:
        """Close both directions and refuse the peer until `connect`.

        Raises:
            PathNotFoundError: no such peer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answer of `MountBackend.fetch`.

    ``ranges`` are bytes of the blob file that can be read until the content is closed. Where a content
    is too large to be stored, ``data`` is what was asked for from ``start`` on, and ``ranges`` may be empty.
    """

    ranges: ByteRanges
    data: bytes = b""


class MountBackend(Protocol):
    """What the mount asks of the engine. All of it runs in the engine thread.

    `opened` and `closed` are posted before, and after, any `fetch` of the same open file.
    """

    def opened(self, arena: str, content: Hash, size: int) -> None:
        """A file with this content was opened: its blob file must stay where it is until `closed`."""
        ...

    def closed(self, arena: str, content: Hash) -> None:
        """It was closed; called once for each `opened`."""
        ...

    def used(self, arena: str, inode: Inode, content: Hash) -> None:
        """A file is read from its blob, for the LRU and its frequency: once for each open, then rarely."""
        ...

    async def fetch(
        self, arena: str, inode: Inode, content: Hash, size: int, start: int, end: int, readahead_bytes: int
    ) -> Fetched:
        """Make ``[start, end)`` of a content readable; at least its first bytes, the caller asks again.

        What is held already is returned at once. After ``end``, ``readahead_bytes`` more are fetched in
        the background; 0 for random access, when nothing but the blocks touched is wanted.

        Raises:
            NoHolderError: nobody who is connected holds it. Immediately so when nobody is connected.
            CorruptError: no holder gives what it should be.
            NoSpaceError: there is nowhere to put it.
        """
        ...

    async def read_unhashed(
        self, arena: str, inode: Inode, vector: Vector, offset: int, length: int
    ) -> bytes:
        """Read from a holder a file that has no hash yet; at most 1 MiB, short only at its end.

        Raises:
            NoHolderError: nobody who is connected holds that version.
            ChangedError: it is no longer that version.
        """
        ...

    async def set_mark(self, arena: str, path: RelPath, mark: Mark | None) -> None:
        """Set the explicit mark of a path, or remove it (None)."""
        ...

    async def status_json(self) -> bytes:
        """Return what ``realize status --json`` prints."""
        ...

    def degraded(self, reason: str) -> None:
        """The mount met a bug or a failure and goes on; for the health that users see."""
        ...
