from __future__ import annotations

from core.brake import DeleteBrake, Verdict
from core.types import RelPath


def files(count: int, start: int = 0) -> dict[RelPath, int]:
    return {RelPath(b"%d" % number): 1 for number in range(start, start + count)}


def test_few_deletions_go_on_at_once_even_if_they_are_everything() -> None:
    brake = DeleteBrake()
    brake.offer(files(100), 0.0, arena_files=100)
    assert brake.judge(0.0) is Verdict.RELEASE
    assert len(brake.take()) == 100
    assert not brake.undecided


def test_many_deletions_wait_until_the_burst_is_over() -> None:
    brake = DeleteBrake()
    brake.offer(files(101), 0.0, arena_files=1000)
    assert brake.judge(0.1) is Verdict.WAIT
    assert brake.undecided
    assert brake.judge(brake.due()) is Verdict.RELEASE


def test_deleting_more_than_half_is_held_until_confirmed() -> None:
    brake = DeleteBrake()
    brake.offer(files(101), 0.0, arena_files=201)
    assert brake.judge(1.0) is Verdict.HOLD
    assert brake.held_files == 101
    assert brake.judge(100.0) is Verdict.WAIT
    assert len(brake.take()) == 101
    assert brake.held_files == 0


def test_exactly_half_is_not_more_than_half() -> None:
    brake = DeleteBrake()
    brake.offer(files(101), 0.0, arena_files=202)
    assert brake.judge(1.0) is Verdict.RELEASE


def test_what_the_burst_took_before_counts() -> None:
    brake = DeleteBrake()
    brake.offer(files(90), 0.0, arena_files=200)
    assert brake.judge(0.0) is Verdict.RELEASE
    brake.take()
    brake.offer(files(20, start=90), 0.2)
    assert brake.judge(1.0) is Verdict.HOLD
    assert brake.held_files == 20


def test_deletions_far_apart_are_no_burst() -> None:
    brake = DeleteBrake()
    for round_ in range(10):
        now = round_ * 10.0
        assert brake.new_burst(now)
        brake.offer(files(90, start=90 * round_), now, arena_files=900 - 90 * round_)
        assert brake.judge(now) is Verdict.RELEASE
        brake.take()


def test_a_directory_counts_with_its_files() -> None:
    brake = DeleteBrake()
    brake.offer({RelPath(b"d"): 5000}, 0.0, arena_files=6000)
    assert brake.judge(1.0) is Verdict.HOLD
    assert brake.covers(RelPath(b"d/e/f"))
    assert not brake.covers(RelPath(b"de"))


def test_what_came_back_is_forgotten() -> None:
    brake = DeleteBrake()
    gone = files(200)
    brake.offer(gone, 0.0, arena_files=200)
    assert brake.judge(1.0) is Verdict.HOLD
    assert brake.came_back(list(gone))
    assert brake.held_files == 0
    assert not brake.undecided
    assert not brake.came_back([RelPath(b"0")])


def test_an_endless_burst_is_judged_in_the_end() -> None:
    brake = DeleteBrake()
    now = 0.0
    count = 0
    while brake.judge(now) is Verdict.WAIT or count <= 100:
        brake.offer(files(10, start=count), now, arena_files=1_000_000)
        count += 10
        now += 0.2
        assert now < 60
    assert now >= 30
