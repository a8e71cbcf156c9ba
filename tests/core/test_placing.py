"""Putting files into a datadir: nothing of the user's is overwritten, and nothing outside is touched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from core import placing
from core.placing import Identity, Placed, Placement, adjust, place
from core.types import Kind, RelPath

NS = 1_600_000_000_123_456_789


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    path = tmp_path / "data"
    path.mkdir()
    return path


def blob(data: Path, content: bytes = b"new content") -> Path:
    path = data.parent / "work" / "blob"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def displaced(data: Path) -> Path:
    return data.parent / "work" / "old-1"


def identity(path: Path) -> Identity:
    found = path.lstat()
    return Identity(found.st_size, found.st_mtime_ns, found.st_ino, is_dir=stat.S_ISDIR(found.st_mode))


def put(data: Path, path: str, *, replaces: Identity | None = None, mode: int = 0o640) -> Placed:
    """Place the blob at a path."""
    source = blob(data) if not (data.parent / "work" / "blob").exists() else data.parent / "work" / "blob"
    return _one(data, Placement(
        RelPath(os.fsencode(path)), Kind.FILE, NS, mode, source, b"", replaces,
        displaced(data) if replaces is not None else None,
    ))  # fmt: skip


def take_out(data: Path, path: str, replaces: Identity | None) -> Placed:
    return _one(
        data, Placement(RelPath(path.encode()), Kind.NONE, 0, 0, replaces=replaces, displaced=displaced(data))
    )


def _one(data: Path, placement: Placement) -> Placed:
    (placed,) = place(data, [placement])
    return placed


def work(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data.parent / "work").iterdir()}


# -- files


def test_a_file_comes_with_its_time_and_mode_and_its_directories(data: Path) -> None:
    placed = put(data, "d/e/f")
    path = data / "d/e/f"
    assert path.read_bytes() == b"new content"
    assert (path.stat().st_mtime_ns, path.stat().st_mode & 0o7777) == (NS, 0o640)
    assert placed == Placed(ino=path.stat().st_ino)
    assert work(data) == {}


def test_set_id_bits_are_not_taken_over(data: Path) -> None:
    put(data, "f", mode=0o6755)
    assert (data / "f").stat().st_mode & 0o7777 == 0o755


def test_what_nobody_expected_is_never_overwritten(data: Path) -> None:
    (data / "f").write_bytes(b"the user's")
    placed = put(data, "f")
    assert placed == Placed(changed=True)
    assert (data / "f").read_bytes() == b"the user's"
    assert work(data) == {"blob": b"new content"}
    assert (data.parent / "work" / "blob").stat().st_mode & 0o777 == 0o600


def test_the_indexed_file_is_replaced_and_kept_aside(data: Path) -> None:
    (data / "f").write_bytes(b"old")
    placed = put(data, "f", replaces=identity(data / "f"))
    assert (data / "f").read_bytes() == b"new content"
    assert (placed.displaced, placed.ino) == (True, (data / "f").stat().st_ino)
    assert work(data) == {"old-1": b"old"}


@pytest.mark.parametrize("change", ["content", "time", "another file", "gone", "a directory", "a link"])
def test_a_file_that_changed_meanwhile_stays(data: Path, change: str) -> None:
    path = data / "f"
    path.write_bytes(b"old")
    known = identity(path)
    match change:
        case "content":
            path.write_bytes(b"the user's")
        case "time":
            os.utime(path, ns=(NS, NS))
        case "another file":
            (data / "g").write_bytes(b"old")
            os.utime(data / "g", ns=(known.mtime_ns, known.mtime_ns))
            (data / "g").rename(path)
        case "gone":
            path.unlink()
        case "a directory":
            path.unlink()
            path.mkdir()
        case _:
            path.unlink()
            path.symlink_to("elsewhere")
    before = _look(path)
    assert put(data, "f", replaces=known) == Placed(changed=True)
    assert _look(path) == before
    assert work(data) == {"blob": b"new content"}


def _look(path: Path) -> object:
    if not os.path.lexists(path):
        return None
    found = path.lstat()
    return (found.st_ino, found.st_mode, found.st_mtime_ns, path.read_bytes() if path.is_file() else b"")


def test_a_file_deleted_between_exchange_and_return_is_in_the_trash(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = data / "f"
    path.write_bytes(b"old")
    known = identity(path)
    path.write_bytes(b"the user's")
    exchange = placing.rename_exchange

    def exchange_and_delete(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
        exchange(old_dir, old, new_dir, new)
        os.unlink(new, dir_fd=new_dir)

    monkeypatch.setattr(placing, "rename_exchange", exchange_and_delete)
    assert put(data, "f", replaces=known) == Placed(changed=True, displaced=True)
    assert work(data) == {"old-1": b"the user's"}


def test_one_that_fails_does_not_stop_the_others(data: Path) -> None:
    (data / "file").write_bytes(b"x")
    source = blob(data)
    first, second, third = place(
        data,
        [
            Placement(RelPath(b"file/f"), Kind.FILE, NS, 0o644, source),
            Placement(RelPath(b"g"), Kind.FILE, NS, 0o644, data / "no such blob"),
            Placement(RelPath(b"h"), Kind.FILE, NS, 0o644, source),
        ],
    )
    assert isinstance(first.error, NotADirectoryError)
    assert isinstance(second.error, FileNotFoundError)
    assert third.ino
    assert (data / "h").read_bytes() == b"new content"


def test_a_datadir_that_is_gone_is_an_error(data: Path) -> None:
    data.rmdir()
    with pytest.raises(FileNotFoundError):
        place(data, [Placement(RelPath(b"d"), Kind.DIR, NS, 0o755)])


def test_nothing_is_put_into_another_directory_in_the_place_of_the_datadir(data: Path) -> None:
    known = data.stat().st_ino
    data.rename(data.parent / "aside")
    data.mkdir()
    with pytest.raises(OSError, match="another directory"):
        place(data, [Placement(RelPath(b"d"), Kind.DIR, NS, 0o755)], ino=known)
    assert not list(data.iterdir())
    data.rmdir()
    data.symlink_to(data.parent / "aside")
    with pytest.raises(NotADirectoryError):
        place(data, [Placement(RelPath(b"d"), Kind.DIR, NS, 0o755)], ino=known)
    assert not (data.parent / "aside/d").exists()


# -- links that lead elsewhere


@pytest.mark.parametrize("target", ["{outside}", "../outside", "."])
def test_no_link_on_the_way_is_followed(data: Path, target: str) -> None:
    outside = data.parent / "outside"
    outside.mkdir()
    (data / "d").symlink_to(target.format(outside=outside))
    placed = put(data, "d/f")
    assert placed.error is not None
    assert list(outside.iterdir()) == []
    assert not (data / "f").exists()


def test_a_link_at_the_place_is_replaced_not_followed(data: Path) -> None:
    outside = data.parent / "outside"
    outside.write_bytes(b"precious")
    (data / "f").symlink_to(outside)
    assert put(data, "f", replaces=identity(data / "f")).displaced
    assert outside.read_bytes() == b"precious"
    assert not (data / "f").is_symlink()


def test_adjusting_follows_no_link(data: Path) -> None:
    outside = data.parent / "outside"
    outside.write_bytes(b"precious")
    outside.chmod(0o644)
    (data / "f").symlink_to(outside)
    with pytest.raises(OSError, match=r"symbolic|levels"):
        adjust(data, RelPath(b"f"), identity(outside), 0o777, NS)
    assert outside.stat().st_mode & 0o777 == 0o644


# -- directories and links


def test_a_directory_gets_its_mode(data: Path) -> None:
    placed = _one(data, Placement(RelPath(b"d"), Kind.DIR, NS, 0o750))
    assert (data / "d").stat().st_mode & 0o7777 == 0o750
    assert placed == Placed(ino=(data / "d").stat().st_ino)


def test_a_directory_that_was_made_for_a_file_before_it_gets_its_mode_too(data: Path) -> None:
    place(
        data,
        [
            Placement(RelPath(b"d/f"), Kind.FILE, NS, 0o644, blob(data)),
            Placement(RelPath(b"d"), Kind.DIR, NS, 0o700),
        ],
    )
    assert (data / "d").stat().st_mode & 0o7777 == 0o700


def test_a_directory_of_the_user_is_left_as_it_is(data: Path) -> None:
    (data / "d").mkdir(mode=0o711)
    placed = _one(data, Placement(RelPath(b"d"), Kind.DIR, NS, 0o750))
    assert placed.ino == (data / "d").stat().st_ino
    assert (data / "d").stat().st_mode & 0o777 == 0o711


def test_a_link_comes_with_its_text_and_time(data: Path) -> None:
    _one(data, Placement(RelPath(b"l"), Kind.SYMLINK, NS, 0o777, target=b"../\xff"))
    assert os.readlink(os.fsencode(data / "l")) == b"../\xff"
    assert (data / "l").lstat().st_mtime_ns == NS


def test_a_link_does_not_overwrite(data: Path) -> None:
    (data / "l").write_bytes(b"the user's")
    assert _one(data, Placement(RelPath(b"l"), Kind.SYMLINK, NS, 0o777, target=b"x")).error
    assert (data / "l").read_bytes() == b"the user's"


def _replace(data: Path, kind: Kind) -> Placed:
    return _one(data, Placement(
        RelPath(b"p"), kind, NS, 0o755, blob(data) if kind is Kind.FILE else None, b"text",
        identity(data / "p"), displaced(data),
    ))  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK])
def test_an_empty_directory_makes_way(data: Path, kind: Kind) -> None:
    (data / "p").mkdir()
    assert _replace(data, kind).ino == (data / "p").lstat().st_ino
    assert not (data / "p").is_dir()


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.SYMLINK])
def test_a_directory_with_something_in_it_stays(data: Path, kind: Kind) -> None:
    (data / "p").mkdir()
    (data / "p/f").write_bytes(b"the user's")
    placed = _replace(data, kind)
    assert placed.error or placed.changed
    assert (data / "p/f").read_bytes() == b"the user's"
    assert set(work(data)) <= {"blob"}


@pytest.mark.parametrize("kind", [Kind.DIR, Kind.SYMLINK])
def test_a_file_that_makes_way_is_kept_aside(data: Path, kind: Kind) -> None:
    (data / "p").write_bytes(b"old")
    assert _replace(data, kind).displaced
    assert work(data) == {"old-1": b"old"}
    assert (data / "p").is_dir() == (kind is Kind.DIR)


# -- deletions


def test_a_deleted_file_is_kept_aside(data: Path) -> None:
    (data / "f").write_bytes(b"old")
    assert take_out(data, "f", identity(data / "f")) == Placed(displaced=True)
    assert not (data / "f").exists()
    assert work(data) == {"old-1": b"old"}


def test_a_changed_file_is_not_deleted(data: Path) -> None:
    (data / "f").write_bytes(b"old")
    known = identity(data / "f")
    (data / "f").write_bytes(b"the user's")
    assert take_out(data, "f", known) == Placed(changed=True)
    assert take_out(data, "f", None) == Placed(changed=True)
    assert (data / "f").read_bytes() == b"the user's"


def test_what_is_gone_already_is_deleted(data: Path) -> None:
    assert take_out(data, "f", Identity(1, 1, 1)) == Placed()


def test_what_went_with_its_directory_is_deleted_and_the_directory_is_not_made_for_that(data: Path) -> None:
    assert take_out(data, "d/e/f", Identity(1, 2, 3)) == Placed()
    assert not list(data.iterdir())


def test_a_directory_is_deleted_only_when_it_is_empty(data: Path) -> None:
    (data / "d").mkdir()
    (data / "d/ignored.tmp").write_bytes(b"x")
    known = identity(data / "d")
    assert take_out(data, "d", known) == Placed(occupied=True)
    (data / "d/ignored.tmp").unlink()
    assert take_out(data, "d", known) == Placed()
    assert not (data / "d").exists()


def test_a_directory_that_was_made_again_is_as_good(data: Path) -> None:
    (data / "d").mkdir()
    assert take_out(data, "d", Identity(0, 0, 12345, is_dir=True)) == Placed()
    assert not (data / "d").exists()


# -- metadata


def test_mode_and_time_are_adjusted(data: Path) -> None:
    (data / "f").write_bytes(b"x")
    placed = adjust(data, RelPath(b"f"), identity(data / "f"), 0o600, NS)
    found = (data / "f").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns, placed.ino) == (0o600, NS, found.st_ino)


def test_a_changed_file_is_not_adjusted(data: Path) -> None:
    (data / "f").write_bytes(b"x")
    known = identity(data / "f")
    (data / "f").write_bytes(b"the user's")
    mode = (data / "f").stat().st_mode
    assert adjust(data, RelPath(b"f"), known, 0o600, NS) == Placed(changed=True)
    assert (data / "f").stat().st_mode == mode
