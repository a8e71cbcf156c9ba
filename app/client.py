"""Runs a command's work against the daemon: finds its socket, connects, unwraps what went wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from app.settings import Settings
from core.errors import NoDaemonError, RealizeError

if TYPE_CHECKING:
    from core.api import Api

T = TypeVar("T")


def call(settings: Settings, work: Callable[[Api], Awaitable[T]]) -> T:
    """Return what ``work(api)`` returns, run in a trio loop of its own.

    Raises:
        NoDaemonError: none answers; the hint says how to start one.
        RealizeError: what ``work`` raised.
    """
    import trio  # the commands that need no daemon start faster without

    path = settings.socket_path()
    try:
        return trio.run(_connected, path, work)
    except BaseExceptionGroup as group:
        error = _single(group)
        if error is None:
            raise
        raise _with_start_hint(error, settings) from error.__cause__
    except NoDaemonError as error:
        raise _with_start_hint(error, settings) from error.__cause__


async def _connected(path: Path, work: Callable[[Api], Awaitable[T]]) -> T:
    from net.control import ControlClient

    async with ControlClient(path) as api:
        return await work(api)


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the one error that a group of tasks ended by; None when there are several bugs.

    Ctrl-C comes first; of several expected errors the first one found is as good as another.
    """
    leaves = list(_leaves(group))
    for kind in (KeyboardInterrupt, SystemExit):
        found = next((leaf for leaf in leaves if isinstance(leaf, kind)), None)
        if found is not None:
            return found
    if len(leaves) == 1 or all(isinstance(leaf, RealizeError) for leaf in leaves):
        return leaves[0]
    return None


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _with_start_hint(error: BaseException, settings: Settings) -> BaseException:
    if not isinstance(error, NoDaemonError) or (error.hint and "realize tui" not in error.hint):
        return error
    if settings.socket is None and not settings.config_path.exists():
        hint = "`realize init` makes a config, then `realize tui` starts the daemon"
    else:
        hint = f"start it with `realize{settings.flags} tui`, or `tui --no-ui` in the background"
    return NoDaemonError(str(error), hint=hint)
