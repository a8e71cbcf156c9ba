"""The table of marks: what is done next, and that nothing is given up before its replacement is here."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.choice import Flag
from core.rules import Action, Case, decide
from core.types import Holding, Kind, Mark

REAL, CACHED, GONE = int(Holding.REAL), int(Holding.CACHED), int(Holding.TOMBSTONE)


def case(mark: Mark = Mark.WATCH, **changes: object) -> Case:
    values: dict[str, object] = {
        "mark": mark, "kind": Kind.FILE, "hashed": True, "shown_local": 0, "local_holding": None,
        "blob_verified": False, "flags": 0, "has_datadir": True,
    }  # fmt: skip
    return Case(**(values | changes))  # type: ignore[arg-type]


OUTDATED = {"shown_local": 0, "local_holding": REAL}
UP_TO_DATE = {"shown_local": REAL, "local_holding": REAL}


@pytest.mark.parametrize(
    ("mark", "changes", "action"),
    [
        (Mark.WATCH, {}, Action.NOTHING),
        (Mark.WATCH, {"blob_verified": True}, Action.NOTHING),
        (Mark.KEEP, {}, Action.DOWNLOAD),
        (Mark.KEEP, {"blob_verified": True}, Action.CACHE),
        (Mark.KEEP, {"shown_local": CACHED, "local_holding": CACHED, "blob_verified": True}, Action.NOTHING),
        (Mark.OWN, {}, Action.DOWNLOAD),
        (Mark.OWN, {"blob_verified": True}, Action.REALIZE),
        (Mark.OWN, {"shown_local": CACHED, "local_holding": CACHED, "blob_verified": True}, Action.REALIZE),
        (Mark.OWN, UP_TO_DATE, Action.NOTHING),
        (Mark.OWN, OUTDATED, Action.DOWNLOAD),
        (Mark.OWN, OUTDATED | {"blob_verified": True}, Action.REALIZE),
        (Mark.WATCH, OUTDATED, Action.DOWNLOAD),
        (Mark.WATCH, OUTDATED | {"blob_verified": True}, Action.REALIZE),
        (Mark.OWN, UP_TO_DATE | {"same_meta": False}, Action.ADJUST),
        (Mark.WATCH, UP_TO_DATE | {"same_meta": False}, Action.ADJUST),
        (Mark.OWN, {"kind": Kind.NONE, "local_holding": REAL}, Action.DELETE),
        (Mark.OWN, {"kind": Kind.NONE, "local_holding": GONE}, Action.NOTHING),
        (Mark.OWN, {"kind": Kind.NONE}, Action.NOTHING),
        (Mark.OWN, {"kind": Kind.DIR}, Action.REALIZE),
        (Mark.OWN, {"kind": Kind.SYMLINK}, Action.REALIZE),
        (Mark.KEEP, {"kind": Kind.DIR}, Action.NOTHING),
        (Mark.KEEP, {"kind": Kind.SYMLINK}, Action.NOTHING),
        (Mark.OWN, {"kind": Kind.DIR, "local_holding": REAL, "implicit": True}, Action.NOTHING),
    ],
)
def test_the_table(mark: Mark, changes: dict[str, object], action: Action) -> None:
    assert decide(case(mark, **changes)) is action


@pytest.mark.parametrize("mark", [Mark.KEEP, Mark.OWN])
@pytest.mark.parametrize("local", [{}, OUTDATED])
def test_jobs_wait_for_the_hash(mark: Mark, local: dict[str, object]) -> None:
    assert decide(case(mark, hashed=False, **local)) is Action.NOTHING


@pytest.mark.parametrize("mark", list(Mark))
def test_without_its_datadir_an_arena_only_caches(mark: Mark) -> None:
    for kind, local, blob in itertools.product(Kind, (None, REAL, CACHED), (False, True)):
        action = decide(
            case(mark, kind=kind, local_holding=local, blob_verified=blob, has_datadir=False, same_meta=False)
        )
        assert action in (Action.NOTHING, Action.DOWNLOAD, Action.CACHE)


cases = st.builds(
    Case,
    mark=st.sampled_from(Mark),
    kind=st.sampled_from(Kind),
    hashed=st.booleans(),
    shown_local=st.sampled_from([0, REAL, CACHED]),
    local_holding=st.sampled_from([None, REAL, CACHED, GONE]),
    blob_verified=st.booleans(),
    flags=st.sampled_from([0, int(Flag.CONFLICT), int(Flag.REVIVED), int(Flag.UNREADABLE)]),
    has_datadir=st.booleans(),
    same_meta=st.booleans(),
)


@given(cases)
def test_a_file_is_replaced_only_by_content_that_is_here_and_verified(given_case: Case) -> None:
    if decide(given_case) is Action.REALIZE and given_case.kind is Kind.FILE:
        assert given_case.blob_verified


@given(cases)
def test_only_what_was_deleted_is_deleted(given_case: Case) -> None:
    if decide(given_case) is Action.DELETE:
        assert given_case.kind is Kind.NONE
        assert given_case.local_holding == REAL


@given(cases)
def test_nothing_is_done_in_a_conflict(given_case: Case) -> None:
    if given_case.flags & Flag.CONFLICT:
        assert decide(given_case) is Action.NOTHING


@given(cases)
def test_what_is_here_already_is_not_fetched(given_case: Case) -> None:
    if given_case.blob_verified or given_case.shown_local == REAL:
        assert decide(given_case) is not Action.DOWNLOAD
