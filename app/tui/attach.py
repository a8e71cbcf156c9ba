"""The dashboard of a daemon that runs elsewhere: attached over the control socket.

The client lives in a trio thread of its own, as the engine does when the dashboard hosts it.
"""

from __future__ import annotations

import concurrent.futures
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from app.bridge import Bridge
from app.tui.app import RealizeApp
from core.loops import TrioThread

if TYPE_CHECKING:
    from core.api import Api

STOP_WITHIN_S = 2.0
"""LIMIT: how long leaving waits for the connection to close."""


def run_attached(socket_path: Path, keymap: dict[str, str] | None = None) -> int:
    """Show the dashboard of the daemon at ``socket_path`` until it is left; returns the exit code.

    Main thread. Leaving does not stop the daemon.

    Raises:
        NoDaemonError: none answers there.
    """
    from net.control import ControlClient

    loop, api, title = connect(ControlClient(socket_path))
    try:
        app = RealizeApp(Bridge(loop, api), title=title, attached=True, keymap=keymap)
        code = app.run()
    finally:
        loop.stop()
        loop.join(STOP_WITHIN_S)
    return app.return_code or 0 if code is None else code


def connect(client: AbstractAsyncContextManager[Api]) -> tuple[TrioThread, Api, str]:
    """Open ``client`` in a new trio thread; returns the thread, what it opened, and the daemon's name.

    Raises:
        RealizeError: what opening it raised.
    """
    opened: concurrent.futures.Future[tuple[Api, str]] = concurrent.futures.Future()

    async def main() -> None:
        try:
            async with client as api:
                opened.set_result((api, (await api.status()).name))
                await trio.sleep_forever()
        except BaseException as error:
            if not opened.done():
                opened.set_exception(_first(error))
                return
            raise

    loop = TrioThread("control client")
    loop.start(main)
    api, title = opened.result()
    return loop, api, title


def _first(error: BaseException) -> BaseException:
    """Return the error that a group of tasks ended by."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
