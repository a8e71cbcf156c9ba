"""Paths inside arenas: what is valid, how they join, and how they are shown.

Pure. Paths are bytes; no normalisation of Unicode. Anything that comes from a peer, a user or a
database of names goes through `check_component` or `check_path` before use.
"""

from __future__ import annotations

import os
import time
import unicodedata

from core.errors import NameTooLongError, PathInvalidError
from core.types import RelPath

NAME_MAX = 255
"""LIMIT: bytes in a component, NAME_MAX of Linux filesystems."""

PATH_MAX_BYTES = 256 * 256
"""LIMIT: bytes in a whole path taken from a peer (300 levels of 255-byte names do not occur)."""

ROOT = RelPath(b"")


def check_component(name: bytes) -> bytes:
    """Return ``name`` if it is one valid component.

    Raises:
        PathInvalidError: it is empty, ``.``, ``..`` or holds NUL or ``/``.
        NameTooLongError: it is longer than 255 bytes.
    """
    if not name or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise PathInvalidError(f"{display(name)!r} is not a valid name")
    if len(name) > NAME_MAX:
        raise NameTooLongError(f"name of {len(name)} bytes is longer than {NAME_MAX}")
    return name


def check_path(path: bytes) -> RelPath:
    """Return ``path`` if it is a valid relative path; ``b""`` is the root.

    Raises:
        PathInvalidError: a component is not valid, or it is absolute or far too long.
        NameTooLongError: a component is longer than 255 bytes.
    """
    if len(path) > PATH_MAX_BYTES:
        raise PathInvalidError(f"path of {len(path)} bytes is too long")
    if path:
        for name in path.split(b"/"):
            check_component(name)
    return RelPath(path)


def join(parent: bytes, name: bytes) -> RelPath:
    """Return ``parent/name``, where the parent may be the root."""
    return RelPath(parent + b"/" + name if parent else name)


def split(path: bytes) -> tuple[RelPath, bytes]:
    """Return the parent and the last name of a path that is not the root."""
    parent, _, name = path.rpartition(b"/")
    return RelPath(parent), name


def is_below(path: bytes, ancestor: bytes) -> bool:
    """Say whether ``path`` is ``ancestor`` or below it."""
    return not ancestor or path == ancestor or path.startswith(ancestor + b"/")


def to_str(path: bytes) -> str:
    """Return the path as text that survives a round trip (surrogateescape), for JSON."""
    return path.decode("utf-8", "surrogateescape")


def to_bytes(path: str) -> bytes:
    """Return the bytes of a path given as text on the command line or in JSON."""
    return os.fsencode(path)


def display(path: bytes | str) -> str:
    """Return the path for a terminal: control, bidirectional and undecodable characters visible."""
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    if text.isascii() and text.isprintable():
        return text
    return "".join(_visible(char) for char in text)


def _visible(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if char == "\n":
        return "\\n"
    if char == "\t":
        return "\\t"
    category = unicodedata.category(char)
    if category[0] == "C" or category in ("Zl", "Zp"):
        return f"\\u{code:04x}" if code > 0xFF else f"\\x{code:02x}"
    return char


def conflict_name(name: bytes, peer: str, mtime_ns: int, number: int = 1) -> bytes:
    """Return ``NAME.conflict-PEER-YYYYMMDD-HHMMSS.EXT`` for a version of ``name``, of its time in UTC.

    The time is that of the version, so that two hosts that keep both make the same name. ``number`` above
    1 makes another one.
    """
    stem, extension = os.path.splitext(name)
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime(max(0, mtime_ns) // 1_000_000_000))
    whose = to_bytes(peer).replace(b"/", b"_").replace(b"\0", b"_")
    more = f"-{number}" if number > 1 else ""
    added = b".conflict-%s-%s" % (whose[:100], (when + more).encode()) + extension[:100]
    return stem[: NAME_MAX - len(added)] + added
