"""Paths: what is valid, how they join, and what a terminal is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import NameTooLongError, PathInvalidError
from core.paths import (
    PATH_MAX_BYTES,
    check_component,
    check_path,
    display,
    is_below,
    join,
    split,
    to_bytes,
    to_str,
)

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
paths = st.lists(names, min_size=1, max_size=5).map(b"/".join)


@pytest.mark.parametrize("name", [b"a", b"...", b" ", b"\n", b":\\", b".hidden", b"\xff\xfe", b"x" * 255])
def test_any_name_that_a_filesystem_allows_is_valid(name: bytes) -> None:
    assert check_component(name) == name
    assert check_path(b"d/" + name) == b"d/" + name


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a\0", b"\0"])
def test_names_that_lead_elsewhere_are_refused(name: bytes) -> None:
    with pytest.raises(PathInvalidError):
        check_component(name)
    with pytest.raises(PathInvalidError):
        check_path(b"d/" + name + b"/f")


@pytest.mark.parametrize("path", [b"/", b"/etc", b"a//b", b"a/", b"../a", b"a/../../b", b"./a"])
def test_paths_that_lead_elsewhere_are_refused(path: bytes) -> None:
    with pytest.raises(PathInvalidError):
        check_path(path)


def test_lengths_are_bounded() -> None:
    with pytest.raises(NameTooLongError):
        check_path(b"d/" + b"x" * 256)
    with pytest.raises(PathInvalidError, match="too long"):
        check_path(b"x/" * (PATH_MAX_BYTES // 2) + b"x")


def test_a_deep_path_is_valid() -> None:
    assert check_path(b"/".join([b"d" * 200] * 300))


def test_a_slash_is_no_component() -> None:
    with pytest.raises(PathInvalidError):
        check_component(b"a/b")


def test_the_root_is_valid() -> None:
    assert check_path(b"") == b""


@given(paths)
def test_what_is_split_joins_again(path: bytes) -> None:
    assert join(*split(path)) == path


@given(paths, names)
def test_what_is_joined_splits_again(parent: bytes, name: bytes) -> None:
    assert split(join(parent, name)) == (parent, name)
    assert join(b"", name) == name


@given(paths, paths)
def test_below_is_a_matter_of_components(path: bytes, other: bytes) -> None:
    assert is_below(join(path, other), path)
    assert is_below(path, path)
    assert is_below(path, b"")
    assert not is_below(path + b"x", path)
    assert is_below(path, other) == (path.split(b"/")[: other.count(b"/") + 1] == other.split(b"/"))


@given(st.binary())
def test_text_survives_a_round_trip(path: bytes) -> None:
    assert to_bytes(to_str(path)) == path


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("日本語 é".encode(), "日本語 é"),
        (b"two\nlines\tand\x1b[31mred", "two\\nlines\\tand\\x1b[31mred"),
        (b"\xff", "\\xff"),
        ("gnp\u202egnp.exe".encode(), "gnp\\u202egnp.exe"),
        ("a\u2066b\u200bc\u2028d\x7f".encode(), "a\\u2066b\\u200bc\\u2028d\\x7f"),
    ],
)
def test_what_would_deceive_is_made_visible(path: bytes, shown: str) -> None:
    assert display(path) == shown
    assert display(to_str(path)) == shown


@given(st.binary())
def test_nothing_shown_moves_the_cursor(path: bytes) -> None:
    assert "\x1b" not in display(path)
    assert all(char.isprintable() or char == " " for char in display(path) if char.isascii())
