from __future__ import annotations

import socket

import pytest
import trio
from trio.testing import MockClock

from net.interfaces import burst

pytestmark = pytest.mark.trio


async def test_a_burst_of_changes_is_one_change(autojump_clock: MockClock) -> None:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    seen: list[float] = []

    async def watch() -> None:
        await burst(ours)
        seen.append(trio.current_time())

    with ours, theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            for _ in range(4):
                await theirs.send(b"changed")
                await trio.sleep(0.5)
            assert seen == []
        assert len(seen) == 1
