"""The word shown for a path, for every combination of what is known of it."""

from __future__ import annotations

import pytest

from core.states import Facts, state_of, state_with_contents
from core.types import FileState, Kind, Mark


def facts(
    kind: Kind = Kind.FILE,
    *,
    real: bool = False,
    held_bytes: int = 0,
    whole: bool = False,
    mark: Mark = Mark.WATCH,
    held_elsewhere: bool = True,
    reachable: bool = True,
) -> Facts:
    return Facts(kind, real, held_bytes, whole, mark, held_elsewhere, reachable)


@pytest.mark.parametrize(
    ("known", "state"),
    [
        (facts(real=True), FileState.REAL),
        (facts(real=True, mark=Mark.KEEP, reachable=False), FileState.REAL),
        (facts(real=True, held_elsewhere=False, reachable=False), FileState.ONLY_HERE),
        (facts(whole=True, held_bytes=5), FileState.CACHED),
        (facts(whole=True, held_bytes=5, held_elsewhere=False, reachable=False), FileState.CACHED),
        (facts(whole=True, held_bytes=5, mark=Mark.KEEP), FileState.KEPT),
        (facts(whole=True, held_bytes=5, mark=Mark.OWN), FileState.KEPT),
        (facts(held_bytes=5), FileState.PARTIAL),
        (facts(held_bytes=5, reachable=False), FileState.PARTIAL),
        (facts(), FileState.ONLINE),
        (facts(mark=Mark.OWN), FileState.ONLINE),
        (facts(reachable=False), FileState.UNAVAILABLE),
        (facts(held_elsewhere=False, reachable=False), FileState.UNAVAILABLE),
        (facts(Kind.DIR, real=True), FileState.REAL),
        (facts(Kind.DIR, reachable=False), FileState.ONLINE),
        (facts(Kind.SYMLINK, reachable=False), FileState.ONLINE),
    ],
)
def test_state_of(known: Facts, state: FileState) -> None:
    assert state_of(known) is state


@pytest.mark.parametrize(
    ("own", "mark", "size", "held", "state"),
    [
        (FileState.ONLINE, Mark.WATCH, 0, 0, FileState.ONLINE),
        (FileState.REAL, Mark.WATCH, 0, 0, FileState.REAL),
        (FileState.ONLINE, Mark.KEEP, 9, 0, FileState.ONLINE),
        (FileState.REAL, Mark.WATCH, 9, 0, FileState.ONLINE),
        (FileState.ONLINE, Mark.KEEP, 9, 8, FileState.PARTIAL),
        (FileState.ONLINE, Mark.WATCH, 9, 9, FileState.CACHED),
        (FileState.ONLINE, Mark.KEEP, 9, 9, FileState.KEPT),
        (FileState.REAL, Mark.OWN, 9, 9, FileState.REAL),
    ],
)
def test_a_directory_has_the_state_of_what_is_in_it(
    own: FileState, mark: Mark, size: int, held: int, state: FileState
) -> None:
    assert state_with_contents(own, mark, size, held) is state
