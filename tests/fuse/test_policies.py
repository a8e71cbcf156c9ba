"""The decisions of the mount that need no mount: read-ahead, and what the kernel may keep."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fuse.content import KernelCache
from fuse.readahead import FIRST_BYTES, MAX_BYTES, ReadAhead

KIB, MIB = 1024, 1024 * 1024


def test_read_ahead_grows_while_a_file_is_read_in_order() -> None:
    ahead = ReadAhead()
    windows = [ahead.note(at, at + 128 * KIB) for at in range(0, 8 * MIB, 128 * KIB)]
    assert windows[:2] == [0, FIRST_BYTES]
    assert windows == sorted(windows)
    assert windows[-1] == MAX_BYTES


def test_requests_of_one_reader_may_come_in_any_order() -> None:
    ahead = ReadAhead()
    offsets = [0, 2 * MIB, 1 * MIB, 3 * MIB, 5 * MIB, 4 * MIB]
    windows = [ahead.note(at, at + MIB) for at in offsets]
    assert windows[-1] == MAX_BYTES


def test_random_reads_get_none() -> None:
    ahead = ReadAhead()
    dice = random.Random(3)
    windows = [ahead.note(at, at + 4 * KIB) for at in (dice.randrange(1 << 40) for _ in range(200))]
    assert set(windows) == {0}


def test_a_jump_ends_it() -> None:
    ahead = ReadAhead()
    for at in range(0, 4 * MIB, MIB):
        ahead.note(at, at + MIB)
    assert ahead.note(500 * MIB, 500 * MIB + 4096) == 0


def test_pages_are_kept_for_the_version_last_opened() -> None:
    cache = KernelCache()
    assert cache.opened(7, b"one") == (False, False)
    cache.closed(7, direct=False)
    assert cache.opened(7, b"one") == (False, True)
    cache.closed(7, direct=False)
    assert cache.opened(7, b"two") == (False, False)
    cache.closed(7, direct=False)
    cache.forget(7)
    assert cache.opened(7, b"two") == (False, False)


@given(st.lists(st.tuples(st.sampled_from("oc"), st.integers(0, 3), st.sampled_from([None, "a", "b", "c"]))))
def test_pages_of_an_inode_never_belong_to_two_versions(
    steps: list[tuple[str, int, str | None]],
) -> None:
    cache = KernelCache()
    handles: list[tuple[str | None, bool]] = []
    pages: set[str | None] = set()
    for step, which, version in steps:
        if step == "o":
            direct, keep = cache.opened(1, version)
            if not direct and not keep:
                pages.clear()
            handles.append((version, direct))
        elif handles:
            _, direct = handles.pop(which % len(handles))
            cache.closed(1, direct=direct)
        pages |= {of for of, direct in handles if not direct}
        assert len(pages) <= 1
