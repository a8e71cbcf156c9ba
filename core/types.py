"""Value types shared by every layer: ids, kinds, marks, states and the metadata of a path.

Owns no behaviour. Names on disk are ``bytes`` everywhere below the edges; decoding for display
is `core.paths.display`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NewType

PeerKey = NewType("PeerKey", bytes)
"""First 8 bytes of the SHA-256 of a peer's public key (SubjectPublicKeyInfo DER)."""

Inode = NewType("Inode", int)
"""Id of a node: stable, never reused, unique over all arenas of a host."""

Hash = NewType("Hash", bytes)
"""Plain 32-byte BLAKE3 of a content, what ``b3sum`` prints."""

Vector = NewType("Vector", bytes)
"""Version vector in canonical form: sorted records of 8 bytes peer key, 8 bytes big-endian counter."""

RelPath = NewType("RelPath", bytes)
"""Path inside an arena: components joined by ``/``; ``b""`` is the arena root."""

HASH_BYTES = 32
PEER_KEY_BYTES = 8


class Kind(enum.IntEnum):
    """What a path is. `NONE` marks a node that shows nothing (a tombstone or a bare parent)."""

    NONE = 0
    FILE = 1
    DIR = 2
    SYMLINK = 3


class Holding(enum.IntEnum):
    """How the announcing host holds a version; the values go on the wire and into databases."""

    TOMBSTONE = 0
    """The path was deleted; the entry's vector orders the deletion."""
    REAL = 1
    """A real file, directory or link in the datadir."""
    CACHED = 2
    """A complete and verified blob (*available*)."""
    DROPPED = 3
    """No longer held here; on the wire only, never stored."""
    KEPT = 4
    """A complete and verified blob that is not evicted: as durable as a real file. Only of peers: what
    this host keeps is `CACHED` with its blob in the protected area."""


HELD = (Holding.REAL, Holding.CACHED, Holding.KEPT)
"""Holdings of which the content can be had."""
DURABLE = (Holding.REAL, Holding.KEPT)
"""Holdings that a host gives up only when others have confirmed theirs (spec 4 §Jobs)."""


class Mark(enum.StrEnum):
    """What a host wants to hold of a path."""

    WATCH = "watch"
    KEEP = "keep"
    OWN = "own"


class FileState(enum.StrEnum):
    """The one word users see for a path (spec 1, *Words*)."""

    ONLINE = "online"
    PARTIAL = "partial"
    CACHED = "cached"
    KEPT = "kept"
    REAL = "real"
    FETCHING = "fetching"
    CONFLICT = "conflict"
    UNAVAILABLE = "unavailable"
    ONLY_HERE = "only_here"


class Priority(enum.IntEnum):
    """Order in which frames leave a connection."""

    INTERACTIVE = 0
    BATCH = 1


@dataclass(frozen=True, slots=True)
class Meta:
    """What a version of a path carries. ``size`` in bytes; ``mode`` is the permission bits only.

    ``hash`` is None for directories, links and files that are not hashed yet.
    ``target`` is the text of a symlink. A deletion has ``kind`` `Kind.NONE`.
    """

    kind: Kind
    size: int
    mtime_ns: int
    mode: int
    hash: Hash | None
    vector: Vector
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class BlockList:
    """BLAKE3 of each block of a content: ``hashes`` is 32 bytes per block, concatenated.

    ``block_bytes`` is 128 KiB doubled until there are at most 8192 blocks. A content of at most one
    block has no list.
    """

    block_bytes: int
    hashes: bytes


BLOCK_BYTES = 128 * 1024
MAX_BLOCKS = 8192
MAX_BLOCK_BYTES = 16 * 1024 * 1024


def block_bytes_for(size: int) -> int:
    """Return the block size in bytes for a content of ``size`` bytes (spec 4 §Blobs)."""
    block = BLOCK_BYTES
    while block < MAX_BLOCK_BYTES and size > block * MAX_BLOCKS:
        block *= 2
    return block


def block_count(size: int, block_bytes: int) -> int:
    """Return how many blocks a content of ``size`` bytes has."""
    return (size + block_bytes - 1) // block_bytes
