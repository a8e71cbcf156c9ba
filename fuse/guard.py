"""The guard around every handler: only ``FUSEError`` may come out of one.

Any other exception would end ``pyfuse3.main`` and leave every caller hanging. An expected error
becomes its errno; a bug becomes EIO, a log line with its traceback, and degraded health.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import pyfuse3

from core.errors import ChangedError
from fuse.errnos import errno_for

_log = logging.getLogger("realize.fuse.guard")

P = ParamSpec("P")
R = TypeVar("R")


class Guarded(Protocol):
    """Whose methods are handlers."""

    def on_bug(self, reason: str) -> None:
        """Hear of a handler that failed for no reason that was foreseen."""
        ...


S = TypeVar("S", bound=Guarded)


def handler(
    method: Callable[Concatenate[S, P], R],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a handler of a method that never waits."""

    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise _answer(self, guarded.__name__, error) from error

    guarded.__name__ = method.__name__
    return guarded


def waiting_handler(
    method: Callable[Concatenate[S, P], Awaitable[R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Make a handler of a method that may wait."""

    async def guarded(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await method(self, *args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as error:
            raise _answer(self, guarded.__name__, error) from error

    guarded.__name__ = method.__name__
    return guarded


def _answer(guarded: Guarded, name: str, error: Exception) -> pyfuse3.FUSEError:
    code = errno_for(error)
    if code is None:
        _log.error("%s failed, the caller gets EIO", name, exc_info=error)
        guarded.on_bug(f"{name} on the mount failed: {error!r}")
        code = errno.EIO
    elif code == errno.EIO and not isinstance(error, ChangedError):
        _log.warning("%s: %s", name, error)
    else:
        _log.debug("%s: %s", name, error)
    return pyfuse3.FUSEError(code)
