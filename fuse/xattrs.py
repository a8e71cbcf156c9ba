"""The extended attributes ``user.realize.*`` of a path (spec 3 §xattrs). Mount thread."""

from __future__ import annotations

import errno

import pyfuse3

from core.errors import PathDeniedError, PathInvalidError
from core.reader import TreeReader
from core.types import Kind, Mark
from fuse.view import Place

_PREFIX = b"user.realize."
MARK = _PREFIX + b"mark"
_READ_ONLY = (b"state", b"version", b"holders", b"progress")
NAMES = (MARK, *(_PREFIX + name for name in _READ_ONLY))


def read(tree: TreeReader, place: Place, name: bytes) -> bytes:
    """Return the value of an attribute.

    For a directory ``version`` is empty, and ``progress`` sums over everything below it.

    Raises:
        FUSEError: ENODATA, there is no such attribute.
    """
    reader, node = place.reader, place.node
    match name.removeprefix(_PREFIX) if name in NAMES else b"":
        case b"mark":
            return reader.mark(node.id).mark.encode()
        case b"state":
            return reader.state(node).encode()
        case b"version":
            return node.hash.hex().encode() if node.hash is not None else b""
        case b"holders":
            names = sorted(tree.peer_name(key) for key in reader.holders(node))
            return ",".join(names).encode("utf-8", "surrogateescape")
        case b"progress":
            if node.kind == Kind.DIR:
                usage = reader.usage(node.id)
                return b"%d/%d" % (usage.held, usage.bytes)
            return b"%d/%d" % (reader.held_bytes(node), node.size)
        case _:
            raise pyfuse3.FUSEError(errno.ENODATA)


def check_settable(name: bytes) -> None:
    """Check that an attribute can be set or removed by users.

    Raises:
        PathDeniedError: it is one of ours that is read-only.
        FUSEError: ENOTSUP, it is not one of ours.
    """
    if name == MARK:
        return
    if name.startswith(_PREFIX):
        raise PathDeniedError("this attribute is read-only")
    raise pyfuse3.FUSEError(errno.ENOTSUP)


def parse_mark(value: bytes) -> Mark:
    """Return the mark that a value names.

    Raises:
        PathInvalidError: it names none.
    """
    try:
        return Mark(value.strip().decode())
    except ValueError:
        raise PathInvalidError("a mark is watch, keep or own") from None
