"""Reading through a real mount: every kind of content, and what happens when it cannot be had."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.demo.household import wait_until
from core.byteranges import ByteRanges
from core.loops import TrioThread
from core.ports import Fetched
from core.types import Hash, Inode
from fuse.mount import Mount
from tests.fuse.conftest import MountFactory
from tests.fuse.store import BLOCK, OTHER, HostOnDisk, MemoryBackend, changes, errno_of, hash_of

DATA = random.Random(1).randbytes(3 * BLOCK + 777)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def test_every_kind_of_content_reads_the_same(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    backend.contents[hash_of(DATA)] = DATA
    docs.real(b"real/deep/file", DATA)
    docs.online(b"online", DATA)
    root = mounted.mountpoint / "docs"
    assert (root / "real/deep/file").read_bytes() == DATA
    assert (root / "online").read_bytes() == DATA
    docs.cached(b"cached", DATA)
    assert (root / "cached").read_bytes() == DATA
    unhashed = docs.unhashed(b"unhashed", len(DATA))
    backend.versions[unhashed] = DATA
    assert (root / "unhashed").read_bytes() == DATA
    docs.online(b"empty", b"")
    assert (root / "empty").read_bytes() == b""


def test_only_missing_ranges_are_fetched(host: HostOnDisk, backend: MemoryBackend, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    content = hash_of(DATA)
    backend.contents[content] = DATA
    docs.partial(b"file", DATA, ByteRanges([(0, BLOCK)]))
    backend.held[content] = ByteRanges([(0, BLOCK)])
    assert (mounted.mountpoint / "docs/file").read_bytes() == DATA
    assert backend.fetched_bytes == len(DATA) - BLOCK


def test_random_reads_fetch_only_the_blocks_they_touch(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    data = random.Random(2).randbytes(64 * BLOCK)
    backend.contents[hash_of(data)] = data
    docs.online(b"file", data)
    offsets = [block * BLOCK + 4096 for block in (50, 3, 33, 12, 60)]
    with opened(mounted.mountpoint / "docs/file") as fd:
        for offset in offsets:
            assert os.pread(fd, 4096, offset) == data[offset : offset + 4096]
    assert backend.fetched_bytes == len(offsets) * BLOCK


def test_a_content_too_large_to_be_stored_is_streamed(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    backend.streams = True
    backend.contents[hash_of(DATA)] = DATA
    host.arenas["docs"].online(b"file", DATA)
    assert (mounted.mountpoint / "docs/file").read_bytes() == DATA
    assert not host.arenas["docs"].blob_path(hash_of(DATA)).exists()


def test_the_engine_hears_of_opens_and_closes(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount, engine: TrioThread
) -> None:
    backend.contents[hash_of(DATA)] = DATA
    host.arenas["docs"].online(b"file", DATA)
    with opened(mounted.mountpoint / "docs/file") as fd:
        assert os.pread(fd, 10, 0) == DATA[:10]
        assert backend.open_count == 1
    mounted.stop()
    wait_until(lambda: backend.open_count == 0, 10, "the engine hears of the close a moment later")


def test_reads_are_uses_opens_are_not_and_few_are_told(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.arenas["docs"].cached(b"file", DATA)

    def uses() -> int:
        return backend.calls.count(("used", "docs"))

    with opened(mounted.mountpoint / "docs/file"):
        pass
    with opened(mounted.mountpoint / "docs/file") as fd:
        assert uses() == 0
        for offset in range(0, 40960, 4096):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(fd, 10, offset) == DATA[offset : offset + 10]
        wait_until(lambda: uses() == 1, 10, "one use")
        monkeypatch.setattr("fuse.handles.USE_S", 0.0)  # a minute later
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(fd, 10, 0)
        wait_until(lambda: uses() > 1, 10, "another use")


def test_content_that_nobody_holds_is_ehostunreach(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.online(b"file", DATA)
    docs.unhashed(b"unhashed", 10)
    for name in ("file", "unhashed"):
        with opened(mounted.mountpoint / "docs" / name) as fd:
            assert errno_of(lambda fd=fd: os.pread(fd, 10, 0)) == errno.EHOSTUNREACH  # type: ignore[misc]


def test_a_hanging_peer_is_given_up_and_holds_up_nobody_else(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    for number in range(40):
        docs.online(b"hang%d" % number, DATA)
    docs.cached(b"cached", b"c" + DATA)
    backend.hang = True
    outcomes: list[int] = []

    def read(path: Path) -> None:
        with opened(path) as fd:
            outcomes.append(errno_of(lambda: os.pread(fd, 10, 0)))

    paths = [mounted.mountpoint / f"docs/hang{number}" for number in range(40)]
    readers = [threading.Thread(target=read, args=(path,)) for path in paths]
    for reader in readers:
        reader.start()
    for _ in readers:
        assert backend.hung.acquire(timeout=5)
    assert (mounted.mountpoint / "docs/cached").read_bytes() == b"c" + DATA
    assert len(os.listdir(mounted.mountpoint / "docs")) == 41
    assert not outcomes
    for reader in readers:
        reader.join(10)
    assert outcomes == [errno.EHOSTUNREACH] * 40


_READER = """
import os, signal, sys
def stop(*_): raise SystemExit(7)
signal.signal(signal.SIGUSR1, stop)
fd = os.open(sys.argv[1], os.O_RDONLY)
os.pread(fd, 10, 0)
"""


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGKILL])
def test_a_waiting_read_of_an_unhashed_file_is_interrupted(
    host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory, how: signal.Signals
) -> None:
    host.arenas["docs"].unhashed(b"file", 100)
    mounted = mount_of(host, backend)
    backend.hang = True
    with subprocess.Popen([sys.executable, "-c", _READER, mounted.mountpoint / "docs/file"]) as reader:
        assert backend.hung.acquire(timeout=10)
        reader.send_signal(how)
        assert reader.wait(0.8) == (7 if how == signal.SIGUSR1 else -signal.SIGKILL)


def test_a_waiting_read_of_a_hashed_file_can_be_killed(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    host.arenas["docs"].online(b"file", DATA)
    backend.hang = True
    with subprocess.Popen([sys.executable, "-c", _READER, mounted.mountpoint / "docs/file"]) as reader:
        assert backend.hung.acquire(timeout=10)
        reader.kill()
        assert reader.wait(0.8) == -signal.SIGKILL


def test_open_handles_keep_the_version_they_opened(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    old, new = DATA, bytes(reversed(DATA))
    node = docs.cached(b"file", old)
    path = mounted.mountpoint / "docs/file"
    with opened(path) as before:
        assert os.pread(before, BLOCK, 0) == old[:BLOCK]
        docs.cached(b"file", new)
        mounted.invalidate(changes("docs", nodes=[node]))
        assert mounted.wait_invalidated(5)
        with opened(path) as after:
            assert os.pread(before, len(DATA), 0) == old
            assert os.pread(after, len(DATA), 0) == new
            assert os.pread(before, len(DATA), 0) == old
    assert path.read_bytes() == new


def test_an_evicted_blob_stays_readable_while_open(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.cached(b"file", DATA)
    with opened(mounted.mountpoint / "docs/file") as fd:
        docs.blob_path(hash_of(DATA)).unlink()
        assert os.pread(fd, len(DATA), 0) == DATA


def test_a_real_file_changed_behind_the_index_is_served_as_it_is(host: HostOnDisk, mounted: Mount) -> None:
    docs = host.arenas["docs"]
    docs.real(b"file", b"indexed")
    path = mounted.mountpoint / "docs/file"
    assert path.read_bytes() == b"indexed"
    assert docs.config.datadir is not None
    (docs.config.datadir / "file").write_bytes(b"changed since")
    assert path.read_bytes() == b"changed since"


def test_a_real_file_that_is_not_there_is_read_from_its_other_holders(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    docs = host.arenas["docs"]
    backend.contents[hash_of(DATA)] = DATA
    for path, holders in ((b"d/shared", [OTHER]), (b"d/alone", [])):
        docs.real(path, DATA)
        docs.put(path, size=len(DATA), content=hash_of(DATA), local=1, holders=holders)
    assert docs.config.datadir is not None
    shutil.rmtree(docs.config.datadir / "d")
    root = mounted.mountpoint / "docs/d"
    assert (root / "shared").read_bytes() == DATA
    assert errno_of((root / "alone").read_bytes) == errno.ENOENT
    docs.config.datadir.rename(docs.config.datadir.with_name("away"))
    assert (root / "shared").read_bytes() == DATA


def test_a_real_file_that_became_a_symlink_is_not_followed(
    host: HostOnDisk, mounted: Mount, tmp_path: Path
) -> None:
    docs = host.arenas["docs"]
    docs.real(b"d/file", b"data")
    (tmp_path / "secret").write_bytes(b"secret")
    assert docs.config.datadir is not None
    on_disk = docs.config.datadir / "d/file"
    on_disk.unlink()
    on_disk.symlink_to(tmp_path / "secret")
    assert errno_of((mounted.mountpoint / "docs/d/file").read_bytes) == errno.ELOOP


def test_files_can_be_mapped(host: HostOnDisk, mounted: Mount) -> None:
    host.arenas["docs"].cached(b"file", DATA)
    script = "import mmap,sys;f=open(sys.argv[1],'rb');m=mmap.mmap(f.fileno(),0,prot=mmap.PROT_READ);" \
        "sys.stdout.buffer.write(m[:])"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", script, mounted.mountpoint / "docs/file"],
        capture_output=True, timeout=20, check=True,
    )  # fmt: skip
    assert done.stdout == DATA


class BuggyBackend(MemoryBackend):
    """An engine with a bug."""

    async def fetch(
        self, arena: str, inode: Inode, content: Hash, size: int, start: int, end: int, readahead_bytes: int
    ) -> Fetched:
        raise ZeroDivisionError("a bug")


def test_a_bug_is_eio_and_the_mount_lives_on(
    host: HostOnDisk, mount_of: MountFactory, engine: TrioThread, caplog: pytest.LogCaptureFixture
) -> None:
    backend = BuggyBackend(host)
    docs = host.arenas["docs"]
    docs.online(b"file", DATA)
    docs.real(b"real", b"data")
    mounted = mount_of(host, backend)
    with opened(mounted.mountpoint / "docs/file") as fd:
        assert errno_of(lambda: os.pread(fd, 10, 0)) == errno.EIO
    assert (mounted.mountpoint / "docs/real").read_bytes() == b"data"
    assert mounted.health == ""
    mounted.stop()
    assert len(backend.reasons) >= 1
    assert "ZeroDivisionError" in caplog.text


def test_without_the_engine_metadata_stays_and_missing_content_fails(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount, engine: TrioThread
) -> None:
    docs = host.arenas["docs"]
    docs.online(b"online", DATA, holders=[OTHER])
    docs.real(b"real", b"data")
    engine.stop()
    assert engine.join(5)
    assert sorted(os.listdir(mounted.mountpoint / "docs")) == ["online", "real"]
    assert (mounted.mountpoint / "docs/real").read_bytes() == b"data"
    with opened(mounted.mountpoint / "docs/online") as fd:
        assert errno_of(lambda: os.pread(fd, 10, 0)) == errno.ENOTCONN
