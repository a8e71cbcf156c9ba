from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from core.disk import READ_FLAGS, Seen, examine, open_beneath, open_by_component, open_root
from core.types import Kind, RelPath

Open = Callable[[int, bytes], int]


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "f").write_bytes(b"inside")
    (tmp_path / "outside").write_bytes(b"secret")
    os.symlink("../../outside", tmp_path / "root" / "d" / "out")
    os.symlink("d", tmp_path / "root" / "link")
    fd = open_root(tmp_path / "root")
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "by component"])
def opener(request: pytest.FixtureRequest) -> Open:
    if request.param == "openat2":
        return open_beneath
    return partial(_by_component)


def _by_component(root_fd: int, path: bytes) -> int:
    return open_by_component(root_fd, path, READ_FLAGS, 0, one_device=True)


def test_a_file_beneath_the_root_opens(root_fd: int, opener: Open) -> None:
    fd = opener(root_fd, b"d/f")
    try:
        assert os.read(fd, 10) == b"inside"
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "path",
    [b"d/out", b"link", b"link/f", b"../outside", b"d/../../outside", b"/etc/passwd", b"none", b"d/f/x"],
)
def test_nothing_else_opens(root_fd: int, opener: Open, path: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the code is checked below
        opener(root_fd, path)
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV, errno.ENOENT, errno.ENOTDIR)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fifo_does_not_hang_the_opener(root_fd: int, opener: Open, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root" / "fifo")
    os.close(opener(root_fd, b"fifo"))


def test_examine_says_what_each_path_is(root_fd: int, tmp_path: Path) -> None:
    root = tmp_path / "root"
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(root)  # the path of a socket must be short
        try:
            listener.bind("sock")
        finally:
            os.chdir(here)
    paths = [
        RelPath(path) for path in (b"d", b"d/f", b"d/out", b"fifo", b"sock", b"none", b"d/f/x", b"link/f")
    ]
    seen = examine(root_fd, paths)
    kinds = [None if sight is None or isinstance(sight, OSError) else sight.kind for sight in seen]
    assert kinds == [Kind.DIR, Kind.FILE, Kind.SYMLINK, Kind.NONE, Kind.NONE, None, None, None]
    link = seen[2]
    assert link is not None
    assert not isinstance(link, OSError)
    assert link.target == b"../../outside"
    found = os.stat(root / "d" / "f")
    assert isinstance(seen[1], Seen)
    assert seen[1][:7] == (Kind.FILE, 6, found.st_mtime_ns, found.st_mode & 0o777, found.st_ino, b"", True)


def test_special_bits_of_the_mode_stay_here(root_fd: int, tmp_path: Path) -> None:
    (tmp_path / "root" / "d" / "f").chmod(0o4755)
    [seen] = examine(root_fd, [RelPath(b"d/f")])
    assert seen is not None
    assert not isinstance(seen, OSError)
    assert seen.mode == 0o755
