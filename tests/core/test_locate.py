"""From what a user types to a path in an arena."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.api import ArenaPath
from core.errors import PathInvalidError, PathNotFoundError
from core.locate import locate, nearest, places_of

MOUNT = Path("/mnt/realize")
PLACES = [
    places_of("docs", [Path("/home/u/docs"), MOUNT / "docs", None]),
    places_of("media/photos", [Path("/home/u/pictures"), MOUNT / "media/photos"]),
]


@pytest.mark.parametrize(
    ("text", "cwd", "arena", "path"),
    [
        (b"docs", b"/", "docs", b""),
        (b"docs/", b"/", "docs", b""),
        (b"docs/a/b c\n", b"/", "docs", b"a/b c\n"),
        (b"docs/a/", b"/", "docs", b"a"),
        (b"docs/\xff", b"/", "docs", b"\xff"),
        (b"media/photos/x", b"/", "media/photos", b"x"),
        (b"/home/u/docs/a", b"/", "docs", b"a"),
        (b"/home/u/docs", b"/", "docs", b""),
        (b"/home/u/pictures/../docs/a", b"/", "docs", b"a"),
        (b"/mnt/realize/docs/a/b", b"/", "docs", b"a/b"),
        (b"/mnt/realize/media/photos/x", b"/", "media/photos", b"x"),
        (b"a", b"/home/u/docs", "docs", b"a"),
        (b".", b"/home/u/docs/sub", "docs", b"sub"),
        (b"..", b"/home/u/docs/sub", "docs", b""),
        (b"./docs", b"/home/u/docs", "docs", b"docs"),
        (b"docs/x", b"/home/u/docs", "docs", b"x"),
    ],
)
def test_where_a_text_leads(text: bytes, cwd: bytes, arena: str, path: bytes) -> None:
    assert locate(text, cwd, PLACES, MOUNT) == ArenaPath(arena, path)


@pytest.mark.parametrize(
    "text", [b"dox/a", b"/home/u/docs-old/a", b"/home/u", b"documents", b"media", b"./docs"]
)
def test_what_is_in_no_arena_is_said_with_a_hint(text: bytes) -> None:
    with pytest.raises(PathNotFoundError) as caught:
        locate(text, b"/tmp", PLACES, MOUNT)
    assert caught.value.hint


def test_a_misspelt_arena_is_recognised() -> None:
    with pytest.raises(PathNotFoundError) as caught:
        locate(b"dosc/a", b"/tmp", PLACES, MOUNT)
    assert "'docs'" in caught.value.hint


def test_the_mount_itself_is_no_path() -> None:
    with pytest.raises(PathInvalidError):
        locate(b"/mnt/realize", b"/", PLACES, MOUNT)


@pytest.mark.parametrize("text", [b"docs//a", b"docs/../x", b"docs/a/./b"])
def test_components_that_lead_elsewhere_are_refused(text: bytes) -> None:
    with pytest.raises(PathInvalidError):
        locate(text, b"/", PLACES, MOUNT)


def test_a_datadir_reached_through_a_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    places = [places_of("docs", [tmp_path / "link"])]
    for name in ("real", "link"):
        assert locate(bytes(tmp_path / name / "f"), b"/", places, None) == ArenaPath("docs", b"f")


def test_nearest_names() -> None:
    assert nearest("phtos", ["photos", "docs"]) == "did you mean 'photos'?"
    assert nearest("zzz", ["photos", "docs"]) == ""
