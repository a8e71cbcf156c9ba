"""The event stream: everyone hears everything, nobody waits for the slow."""

from __future__ import annotations

import pytest
import trio

from core.events import BACKLOG, AnyEvent, ChurtenChanged, EventBus, Reset, Subscription, Warned

pytestmark = pytest.mark.trio


async def next_batch(subscription: Subscription) -> list[AnyEvent]:
    with trio.fail_after(5):
        return await anext(subscription.batches())


async def test_every_subscriber_gets_every_event_in_order_and_stamped() -> None:
    bus = EventBus(lambda: 42)
    with bus.subscribe() as one, bus.subscribe() as other:
        bus.emit(ChurtenChanged(running=True))
        bus.emit(ChurtenChanged(running=False, at_ns=7))
        expected = [ChurtenChanged(running=True, at_ns=42), ChurtenChanged(running=False, at_ns=7)]
        assert await next_batch(one) == expected
        assert await next_batch(other) == expected


async def test_a_waiting_subscriber_is_woken() -> None:
    bus = EventBus(lambda: 1)
    heard: list[AnyEvent] = []
    with bus.subscribe() as subscription:
        async with trio.open_nursery() as nursery:

            async def listen() -> None:
                heard.extend(await next_batch(subscription))

            nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            bus.emit(ChurtenChanged(running=True))
    assert len(heard) == 1


async def test_a_slow_subscriber_is_reset_and_goes_on() -> None:
    bus = EventBus(lambda: 1)
    with bus.subscribe() as slow, bus.subscribe() as quick:
        for number in range(BACKLOG):
            bus.emit(Warned(arena="a", text=str(number)))
        assert len(await next_batch(quick)) == BACKLOG
        bus.emit(Warned(arena="a", text="one too many"))
        bus.emit(Warned(arena="a", text="after"))
        assert await next_batch(slow) == [Reset(at_ns=1), Warned(arena="a", text="after", at_ns=1)]
        assert [event.text for event in await next_batch(quick) if isinstance(event, Warned)] == [
            "one too many",
            "after",
        ]


async def test_who_has_left_hears_nothing() -> None:
    bus = EventBus(lambda: 1)
    with bus.subscribe() as subscription:
        pass
    bus.emit(ChurtenChanged(running=True))
    with trio.move_on_after(0) as scope:
        await anext(subscription.batches())
    assert scope.cancelled_caught


async def test_a_tap_hears_events_at_once() -> None:
    bus = EventBus(lambda: 3)
    heard: list[AnyEvent] = []
    bus.tap(heard.append)
    bus.emit(ChurtenChanged(running=True))
    assert heard == [ChurtenChanged(running=True, at_ns=3)]
