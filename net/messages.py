"""The messages of the protocol as values; what each means is in ``wire.capnp`` and docs/protocol.md.

Values only. What `net.codec` returns has been checked field by field.
"""

from __future__ import annotations

import msgspec

from core.byteranges import ByteRanges
from core.types import Hash, RelPath, Vector

PROTOCOL = 1
FEATURE_READ_MANY = 1 << 0
FEATURE_LEASES = 1 << 1
FEATURES = FEATURE_READ_MANY | FEATURE_LEASES

REQUESTS_IN_FLIGHT = 256
"""LIMIT: open requests of one side (spec 5 §Frames)."""
SUBSCRIPTIONS_IN_FLIGHT = 4096
"""LIMIT: open subscriptions of one side: as many as arenas in a `Hello`."""
MAX_WINDOW = 64 * 1024 * 1024
"""LIMIT: credit that a peer can pile up for one request (spec 5 §Transfer: 4-64 MiB in flight)."""
SINGLE_WINDOW = 2 * 1024 * 1024
"""Credit of requests that name none: their answers are one payload, or 1 MiB in frames."""
ITEM_COST = 64
"""Credit that an item costs beside its payload, so that empty ones are not free."""
MAX_CONTENTS = 16_384
"""LIMIT: contents or ranges in one request; as many hashes and sizes fill 576 KiB of the header."""
MAX_LEASES = 1024
"""LIMIT: paths in one `Lease`; the answer waits until all of them are on the disk."""
MAX_LEASE_PATH_BYTES = 512 * 1024
"""LIMIT: their paths together; with the hashes below the limit of a header."""
MAX_SMALL = 1024 * 1024
"""LIMIT: size of a content in `ReadMany`: one payload."""
MAX_ENTRIES = 5000
"""LIMIT: entries in one message of announcements: a few milliseconds of decoding."""
CHUNK_BYTES = 256 * 1024
"""LIMIT: payload of our frames of file data (spec 5 §Frames)."""


class Hello(msgspec.Struct, frozen=True):
    """First message each way. ``arenas``: those the sender lets the receiver see."""

    name: str
    arenas: frozenset[str]
    clock_ns: int
    features: int = FEATURES
    protocol: int = PROTOCOL


class Ping(msgspec.Struct, frozen=True):
    """Asks for a `Pong` with the same token."""

    token: int


class Pong(msgspec.Struct, frozen=True):
    """Answers a `Ping`."""

    token: int


class Goodbye(msgspec.Struct, frozen=True):
    """Why the sender closes the connection."""

    reason: str


class Credit(msgspec.Struct, frozen=True):
    """More credit for an answer, in bytes."""

    amount: int


class Cancel(msgspec.Struct, frozen=True):
    """No more items are wanted."""


class End(msgspec.Struct, frozen=True):
    """The answer is complete."""


class Failure(msgspec.Struct, frozen=True):
    """The request failed (``error`` on the wire). ``causes`` outermost first."""

    code: int
    message: str
    causes: tuple[str, ...] = ()
    hint: str = ""


class Subscribe(msgspec.Struct, frozen=True):
    """Asks for announcements after ``seq`` of history ``uuid`` (``b""``: none seen)."""

    arena: str
    uuid: bytes
    seq: int
    window: int


class Acknowledge(msgspec.Struct, frozen=True):
    """Everything up to ``seq`` is applied and durable."""

    arena: str
    uuid: bytes
    seq: int


class Read(msgspec.Struct, frozen=True):
    """Asks for ranges of a content."""

    arena: str
    content: Hash
    ranges: ByteRanges
    interactive: bool
    window: int


class ReadVersion(msgspec.Struct, frozen=True):
    """Asks for a part of a file that has no hash yet."""

    arena: str
    path: RelPath
    vector: Vector
    offset: int
    length: int


class ReadMany(msgspec.Struct, frozen=True):
    """Asks for small contents whole; ``contents`` and ``sizes`` are parallel."""

    arena: str
    contents: list[Hash]
    sizes: list[int]
    window: int


class Blocks(msgspec.Struct, frozen=True):
    """Asks for a part of the block list of a content."""

    arena: str
    content: Hash
    first: int
    count: int


class Have(msgspec.Struct, frozen=True):
    """Asks which contents are held whole and verified."""

    arena: str
    contents: list[Hash]


class Lease(msgspec.Struct, frozen=True):
    """Asks which contents stay, durably, at these paths while the asker gives them up; parallel lists."""

    arena: str
    paths: list[RelPath]
    contents: list[Hash]


class Control(msgspec.Struct, frozen=True):
    """Calls a method of `core.api.Api`; the payload is its arguments."""

    method: str


class Announcements(msgspec.Struct, frozen=True):
    """Item of `Subscribe`; the payload is for `net.codec.decode_batch`."""


class Data(msgspec.Struct, frozen=True):
    """Item of `Read` and `ReadVersion`: the payload stands at ``offset``."""

    offset: int


class Many(msgspec.Struct, frozen=True):
    """Item of `ReadMany`: contents ``first`` and following; a length of None: not held."""

    first: int
    lengths: list[int | None]


class BlockHashes(msgspec.Struct, frozen=True):
    """Item of `Blocks`; the payload is 32 bytes for each block."""

    block_bytes: int


class Flags(msgspec.Struct, frozen=True):
    """Item of `Have` and `Lease`; the payload is a byte, 0 or 1, for each content."""


class Result(msgspec.Struct, frozen=True):
    """Item of `Control`; the payload is (a part of) a value, ``more`` when parts of it follow."""

    more: bool


Request = Subscribe | Read | ReadVersion | ReadMany | Blocks | Have | Lease | Control
Item = Announcements | Data | Many | BlockHashes | Flags | Result
Body = Hello | Ping | Pong | Goodbye | Credit | Cancel | End | Failure | Acknowledge | Request | Item

REQUESTS: tuple[type[Request], ...] = (Subscribe, Read, ReadVersion, ReadMany, Blocks, Have, Lease, Control)
ITEM_OF: dict[type[Request], type[Item]] = {
    Subscribe: Announcements,
    Read: Data,
    ReadVersion: Data,
    ReadMany: Many,
    Blocks: BlockHashes,
    Have: Flags,
    Lease: Flags,
    Control: Result,
}
"""The kind of item that answers each request."""
ITEMS: tuple[type[Item], ...] = tuple(dict.fromkeys(ITEM_OF.values()))
WITH_PAYLOAD: tuple[type[Body], ...] = (Control, *ITEMS)


def window_of(request: Request) -> int:
    """Return the first credit of a request, in bytes."""
    match request:
        case Subscribe() | Read() | ReadMany():
            return request.window
        case ReadVersion() | Blocks() | Have() | Lease():
            return SINGLE_WINDOW
        case Control():
            return CONTROL_WINDOW


CONTROL_WINDOW = 4 * 1024 * 1024
"""Credit of a control call; replenished as values are taken."""
