"""The attribute ``user.realize.mark`` of files and directories on disk (spec 3 §xattrs), read and parsed.

A filesystem without user attributes has no marks in it, silently (``realize doctor`` tells). System calls
that block: in workers.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from core.types import Mark

ATTRIBUTE = "user.realize.mark"


def parse(value: bytes) -> Mark | None:
    """Return the mark that a value names, None if it names none."""
    try:
        return Mark(value.strip().decode())
    except ValueError:
        return None


def read(at: int | bytes) -> bytes | None:
    """Return the attribute of a descriptor or path (no symlink followed), ``b""`` if there is none.

    None: it cannot be told (no permission, no such attributes on this filesystem). Costs 1 µs by descriptor.
    """
    try:
        # An empty list is much cheaper than the exception of a missing attribute.
        names = os.listxattr(at) if isinstance(at, int) else os.listxattr(at, follow_symlinks=False)
        if ATTRIBUTE not in names:
            return b""
        if isinstance(at, int):
            return os.getxattr(at, ATTRIBUTE)
        return os.getxattr(at, ATTRIBUTE, follow_symlinks=False)
    except OSError as error:
        return b"" if error.errno == errno.ENODATA else None


def read_at(dir_fd: int, name: bytes) -> bytes | None:
    """As `read`, of a name in an open directory; costs 4 µs."""
    return read(b"/proc/self/fd/%d/%s" % (dir_fd, name))


def clear(path: bytes) -> None:
    """Remove the attribute of a file that enters the datadir: it is of wherever the file was before."""
    with suppress(OSError):
        os.removexattr(path, ATTRIBUTE, follow_symlinks=False)
