from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.debounce import Change, Debouncer
from core.types import RelPath

A = RelPath(b"a")
B = RelPath(b"b")


def due_at(debouncer: Debouncer, start: float, stop: float, step: float = 0.001) -> float | None:
    """Return when the first path becomes due, looking each millisecond."""
    now = start
    while now <= stop:
        if debouncer.due(now):
            return now
        now += step
    return None


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        (Change.WRITTEN, 0.002, 0.006),
        (Change.ADDED, 0.100, 0.112),
        (Change.ATTRIBUTES, 0.100, 0.112),
        (Change.MODIFIED, 0.300, 0.312),
        (Change.GONE, 0.300, 0.312),
    ],
)
def test_each_change_waits_its_time(change: Change, least: float, most: float) -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, change, 100.0)
    at = due_at(debouncer, 100.0, 101.0)
    assert at is not None
    assert least <= at - 100.0 <= most
    assert not len(debouncer)


def test_a_short_debounce_shortens_the_wait_of_new_files() -> None:
    debouncer = Debouncer(0.02)
    debouncer.push(A, Change.ADDED, 100.0)
    at = due_at(debouncer, 100.0, 101.0)
    assert at is not None
    assert at <= 100.032


def test_each_event_restarts_the_wait() -> None:
    debouncer = Debouncer(0.3)
    for step in range(5):
        debouncer.push(A, Change.MODIFIED, 100 + step * 0.2)
    assert debouncer.due(101.0) == []
    assert debouncer.due(101.2) == [A]


def test_a_path_that_is_never_quiet_is_due_after_ten_times_the_debounce() -> None:
    debouncer = Debouncer(0.3)
    now = 100.0
    while not debouncer.due(now):
        now += 0.05
        debouncer.push(A, Change.MODIFIED, now)
        assert now < 110
    assert 103.0 <= now <= 103.1


def test_a_save_is_seen_at_once_even_after_slow_writing() -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, Change.MODIFIED, 100.0)
    debouncer.push(A, Change.WRITTEN, 100.1)
    assert debouncer.due(100.104) == [A]


def test_a_file_saved_in_a_loop_is_announced_at_most_every_20_ms() -> None:
    debouncer = Debouncer(0.3)
    times = []
    for millisecond in range(200):
        now = 100 + millisecond / 1000
        debouncer.push(A, Change.WRITTEN, now) if millisecond % 30 == 0 else None
        debouncer.push(A, Change.WRITTEN, now) if millisecond % 31 == 0 else None
        if debouncer.due(now):
            times.append(now)
    assert len(times) >= 6
    assert all(later - earlier >= 0.0199 for earlier, later in pairwise(times))


def test_setting_times_after_a_save_does_not_delay_it() -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, Change.WRITTEN, 100.0)
    debouncer.push(A, Change.ATTRIBUTES, 100.001)
    assert debouncer.due(100.004) == [A]


def test_what_comes_back_within_the_debounce_is_one_change() -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, Change.GONE, 100.0)
    debouncer.push(A, Change.ADDED, 100.2)
    assert debouncer.due(100.29) == []
    assert debouncer.due(100.4) == [A]
    assert debouncer.next_due() is None


def test_a_burst_of_new_files_comes_in_batches() -> None:
    debouncer = Debouncer(0.3)
    for number in range(1000):
        debouncer.push(RelPath(b"%d" % number), Change.ADDED, 100 + number / 10_000)
    wakes = 0
    taken = 0
    while (at := debouncer.next_due()) is not None:
        wakes += 1
        taken += len(debouncer.due(at))
    assert taken == 1000
    assert wakes <= 12


def test_the_number_taken_at_once_can_be_limited() -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, Change.WRITTEN, 100.0)
    debouncer.push(B, Change.WRITTEN, 100.0)
    assert len(debouncer.due(101.0, limit=1)) == 1
    assert len(debouncer.due(101.0, limit=1)) == 1


def test_what_was_discarded_is_never_due() -> None:
    debouncer = Debouncer(0.3)
    debouncer.push(A, Change.GONE, 100.0)
    debouncer.discard([A, B])
    assert A not in debouncer
    assert debouncer.next_due() is None
    assert debouncer.due(200.0) == []


EVENTS = st.lists(st.tuples(st.sampled_from([A, B]), st.sampled_from(Change), st.floats(0, 0.5)), max_size=40)


@given(EVENTS)
def test_every_path_is_due_once_it_is_quiet_and_never_later_than_the_limit(
    events: list[tuple[RelPath, Change, float]],
) -> None:
    debouncer = Debouncer(0.3)
    now = 100.0
    first: dict[RelPath, float] = {}
    for path, change, pause in events:
        now += pause
        for ready in debouncer.due(now):
            assert ready in first
            del first[ready]
        debouncer.push(path, change, now)
        first.setdefault(path, now)
        next_due = debouncer.next_due()
        assert next_due is not None
        assert next_due <= min(first.values()) + 10 * 0.3 + 0.011 or next_due <= now + 0.011
    assert set(debouncer.due(now + 0.4)) == set(first)
    assert not len(debouncer)
