"""Which errno an application gets for an error. The table is `core.errors.ERRNOS`."""

from __future__ import annotations

import errno

from core.errors import RealizeError, errno_of


def errno_for(error: Exception) -> int | None:
    """Return the errno of an expected error; None for a bug."""
    if isinstance(error, RealizeError):
        return errno_of(error)
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    return None
