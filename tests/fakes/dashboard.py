"""Shows the dashboard on a fake household: ``python -m tests.fakes.dashboard [sample|empty|big]``."""

from __future__ import annotations

import sys

import trio

from app.bridge import Bridge
from app.tui.app import RealizeApp
from core.loops import TrioThread
from tests.fakes import household
from tests.fakes.api import FakeApi

TICK_S = 0.25


async def live(api: FakeApi, speed: float = 1.0) -> None:
    """Let time pass in the household while there is work."""
    while api.job_list:
        await trio.sleep(TICK_S)
        api.tick(TICK_S * speed)
    await trio.sleep_forever()


def main(kind: str) -> int:
    """Run the dashboard until it is left."""
    api = {"sample": household.sample, "empty": household.empty, "big": household.big}[kind]()
    loop = TrioThread("engine")
    loop.start(lambda: live(api))
    app = RealizeApp(Bridge(loop, api), title=api.name, attached=False, now_ns=lambda: api.now_ns)
    code = app.run()
    loop.stop()
    loop.join(5)
    return code or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "sample"))
