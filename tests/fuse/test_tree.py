"""Listing, attributes, names and extended attributes, as programs see them on a real mount."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
from pathlib import Path

import pytest

from core.byteranges import ByteRanges
from core.types import FileState, Kind, Mark
from fuse.mount import Mount
from tests.fuse.conftest import MountFactory
from tests.fuse.store import (
    BLOCK,
    MTIME_NS,
    OTHER,
    THIRD,
    HostOnDisk,
    MemoryBackend,
    changes,
    errno_of,
    hash_of,
)  # fmt: skip

ODD_NAMES = [
    b"plain", b"with space", b"new\nline", b"colon:", b"back\\slash", b".hidden", b"\xff\xfe not utf-8",
    "Grüße".encode(), b"-rf", b"*", b"n" * 255,
]  # fmt: skip


def test_arenas_are_directories_and_an_arena_a_slash_b_makes_a(
    tmp_path: Path, mount_of: MountFactory
) -> None:
    host = HostOnDisk(tmp_path / "h", ["docs", "media/music", "media/film"])
    host.arenas["media/music"].online(b"song", b"la")
    mount = mount_of(host, MemoryBackend(host))
    assert sorted(os.listdir(mount.mountpoint)) == [".realize", "docs", "media"]
    assert sorted(os.listdir(mount.mountpoint / "media")) == ["film", "music"]
    assert os.listdir(mount.mountpoint / "media/music") == ["song"]
    assert (mount.mountpoint / "media").stat().st_mode == stat.S_IFDIR | 0o755


def test_odd_names_survive(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    for name in ODD_NAMES:
        docs.online(b"odd/" + name, name)
    directory = os.path.join(os.fsencode(mounted.mountpoint), b"docs/odd")
    assert sorted(os.listdir(directory)) == sorted(ODD_NAMES)
    for name in ODD_NAMES:
        assert os.stat(os.path.join(directory, name)).st_size == len(name)


def test_attributes_are_those_of_the_version(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    inode = docs.put(b"a/file", size=5_000_000_000, mode=0o640, content=hash_of(b""), holders=[OTHER])
    docs.put(b"a/link", Kind.SYMLINK, target=b"../elsewhere", mode=0o777, holders=[OTHER])
    found = (mounted.mountpoint / "docs/a/file").stat()
    assert (found.st_ino, found.st_size, found.st_mtime_ns) == (inode, 5_000_000_000, MTIME_NS)
    assert found.st_mode == stat.S_IFREG | 0o640
    assert (found.st_uid, found.st_gid, found.st_ctime_ns) == (os.getuid(), os.getgid(), MTIME_NS)
    link = (mounted.mountpoint / "docs/a/link").lstat()
    assert (link.st_size, stat.S_ISLNK(link.st_mode)) == (len(b"../elsewhere"), True)
    assert os.readlink(mounted.mountpoint / "docs/a/link") == "../elsewhere"


def test_disk_use_is_what_is_held_here(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    data = os.urandom(4 * BLOCK)
    docs.online(b"online", data)
    docs.partial(b"partial", b"p" + data, ByteRanges([(0, BLOCK)]))
    docs.cached(b"cached", b"c" + data)
    docs.real(b"real", b"r" + data)
    blocks = {name: (mounted.mountpoint / "docs" / name).stat().st_blocks for name in
              ("online", "partial", "cached", "real")}  # fmt: skip
    whole = (4 * BLOCK + 1 + 511) // 512
    assert blocks == {"online": 0, "partial": BLOCK // 512, "cached": whole, "real": whole}


def test_every_change_is_refused_with_erofs(host: HostOnDisk, mounted: Mount) -> None:
    host.arenas["docs"].real(b"file", b"data")
    root = mounted.mountpoint / "docs"
    attempts = [
        lambda: os.mkdir(root / "new"),
        lambda: os.unlink(root / "file"),
        lambda: os.rename(root / "file", root / "other"),
        lambda: os.symlink("x", root / "link"),
        lambda: os.link(root / "file", root / "hard"),
        lambda: os.mkfifo(root / "fifo"),
        lambda: os.truncate(root / "file", 0),
        lambda: os.chmod(root / "file", 0o600),
        lambda: os.utime(root / "file"),
        lambda: os.close(os.open(root / "file", os.O_RDWR)),
        lambda: os.close(os.open(root / "file", os.O_WRONLY | os.O_TRUNC)),
        lambda: os.close(os.open(root / "new", os.O_CREAT | os.O_WRONLY)),
        lambda: os.rmdir(root),
    ]
    for attempt in attempts:
        assert errno_of(attempt) in (errno.EROFS, errno.EBUSY)
    assert (root / "file").read_bytes() == b"data"


def test_posix_results_for_what_is_not_there(host: HostOnDisk, mounted: Mount) -> None:
    host.arenas["docs"].online(b"file", b"data")
    root = mounted.mountpoint / "docs"
    for path, code in [
        (root / "missing", errno.ENOENT),
        (root / "file/below", errno.ENOTDIR),
        (root / ("x" * 256), errno.ENAMETOOLONG),
        (mounted.mountpoint / "nowhere/x", errno.ENOENT),
    ]:
        assert errno_of(path.stat) == code


def test_xattrs_say_what_is_known_of_a_path(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    data = os.urandom(2 * BLOCK)
    docs.partial(b"d/partial", data, ByteRanges([(0, BLOCK)]))
    docs.real(b"d/real", b"r", holders=[OTHER, THIRD])
    docs.mark(b"d", Mark.KEEP)
    path = mounted.mountpoint / "docs/d/partial"
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == {
        "user.realize.mark": b"keep",
        "user.realize.state": b"partial",
        "user.realize.version": hash_of(data).hex().encode(),
        "user.realize.holders": b"other",
        "user.realize.progress": b"%d/%d" % (BLOCK, 2 * BLOCK),
    }
    assert os.getxattr(mounted.mountpoint / "docs/d/real", "user.realize.holders") == b"other,third"
    directory = mounted.mountpoint / "docs/d"
    assert os.getxattr(directory, "user.realize.progress") == b"%d/%d" % (BLOCK + 1, 2 * BLOCK + 1)
    assert os.getxattr(mounted.mountpoint / "docs", "user.realize.mark") == b"watch"
    assert errno_of(lambda: os.getxattr(path, "user.other")) == errno.ENODATA


@pytest.mark.parametrize("name", ["state", "version", "holders", "progress"])
def test_xattrs_but_the_mark_are_read_only(host: HostOnDisk, mounted: Mount, name: str) -> None:
    host.arenas["docs"].online(b"file", b"data")
    path = mounted.mountpoint / "docs/file"
    for attempt in (
        lambda: os.setxattr(path, f"user.realize.{name}", b"x"),
        lambda: os.removexattr(path, f"user.realize.{name}"),
    ):
        assert errno_of(attempt) == errno.EPERM


def test_setting_the_mark_goes_to_the_engine(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    docs.online(b"d/file", b"data")
    marks: list[tuple[str, bytes, Mark | None]] = []
    backend.on_mark = lambda arena, path, mark: marks.append((arena, path, mark))
    path = mounted.mountpoint / "docs/d/file"
    os.setxattr(path, "user.realize.mark", b"own")
    docs.mark(b"d/file", Mark.OWN)
    assert os.getxattr(path, "user.realize.mark") == b"own"
    os.removexattr(path, "user.realize.mark")
    assert marks == [("docs", b"d/file", Mark.OWN), ("docs", b"d/file", None)]
    assert errno_of(lambda: os.setxattr(path, "user.realize.mark", b"hoard")) == errno.EINVAL


def test_states_follow_the_connected_peers(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.online(b"file", b"data", holders=[THIRD])
    path = mounted.mountpoint / "docs/file"
    assert os.getxattr(path, "user.realize.state").decode() == FileState.UNAVAILABLE
    host.connected.add(THIRD)
    assert os.getxattr(path, "user.realize.state").decode() == FileState.ONLINE


def test_changes_are_visible_at_once_despite_long_timeouts(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.online(b"d/a", b"one")
    docs.online(b"d/b", b"two")
    directory = mounted.mountpoint / "docs/d"
    assert sorted(os.listdir(directory)) == ["a", "b"]
    assert (directory / "a").stat().st_size == 3
    new = docs.online(b"d/c", b"three")
    a = docs.online(b"d/a", b"longer")
    docs.remove(b"d/b")
    parent = docs.nodes[b"d"]
    assert sorted(os.listdir(directory)) == ["a", "b"]  # the kernel answers, and has not been told
    mounted.invalidate(changes("docs", listings=[parent], nodes=[a, new], gone=[(parent, b"b")]))
    assert mounted.wait_invalidated(5)
    assert sorted(os.listdir(directory)) == ["a", "c"]
    assert (directory / "a").stat().st_size == 6
    assert not (directory / "b").exists()


def test_what_comes_into_an_empty_directory_is_listed(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    directory = mounted.mountpoint / "docs"
    assert os.listdir(directory) == []
    assert os.listdir(directory) == []  # from the kernel's cache
    docs.online(b"first", b"data")
    mounted.invalidate(changes("docs", listings=[docs.root]))
    assert mounted.wait_invalidated(5)
    assert os.listdir(directory) == ["first"]


def test_a_name_that_was_missing_appears(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    path = mounted.mountpoint / "docs/late"
    assert not path.exists()
    docs.online(b"late", b"data")
    mounted.invalidate(changes("docs", listings=[docs.root]))
    assert path.exists()


def test_ten_thousand_entries_are_all_listed_while_others_come_and_go(
    host: HostOnDisk, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    names = {f"file{i:05d}" for i in range(10_000)}
    with docs.conn:
        for name in sorted(names):
            docs.put(b"big/" + name.encode(), size=1, content=hash_of(b"x"), holders=[OTHER])
    parent = docs.nodes[b"big"]
    seen: list[str] = []
    with os.scandir(mounted.mountpoint / "docs/big") as entries:
        for number, entry in enumerate(entries):
            seen.append(entry.name)
            if number % 500 == 250:
                added, removed = f"new{number}", f"file{10_000 - number // 50 - 1:05d}"
                node = docs.online(b"big/" + added.encode(), b"x")
                docs.remove(b"big/" + removed.encode())
                names.discard(removed)
                gone = [(parent, removed.encode())]
                mounted.invalidate(changes("docs", listings=[parent], nodes=[node], gone=gone))
    assert len(seen) == len(set(seen))
    assert names <= set(seen)
    assert mounted.wait_invalidated(5)
    assert len(os.listdir(mounted.mountpoint / "docs/big")) == 10_000


def test_a_tree_of_three_hundred_levels(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.online(b"/".join([b"d"] * 300) + b"/leaf", b"deep")
    docs.mark(b"d", Mark.KEEP)
    found = subprocess.run(
        ["find", mounted.mountpoint / "docs", "-name", "leaf", "-printf", "%d %s"],
        capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    assert found.stdout == b"301 4"
    path = mounted.mountpoint.joinpath("docs", *["d"] * 300, "leaf")
    assert os.getxattr(path, "user.realize.mark") == b"keep"


def test_statfs_tells_of_the_filesystem_of_the_workdir(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.online(b"file", b"data")
    for path in (mounted.mountpoint, mounted.mountpoint / "docs/file"):
        found, wanted = os.statvfs(path), os.statvfs(docs.config.workdir)
        assert (found.f_bsize, found.f_blocks, found.f_namemax) == (wanted.f_bsize, wanted.f_blocks, 255)


def test_status_can_be_read(mounted: Mount) -> None:
    path = mounted.mountpoint / ".realize/status.json"
    assert json.loads(path.read_bytes()) == {"schema": 1}
    assert sorted(os.listdir(mounted.mountpoint / ".realize")) == ["conflicts", "status.json", "trash"]
