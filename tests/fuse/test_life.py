"""Starting and stopping the mount, also after a crash and while it is in use."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from core.errors import StoreError
from core.loops import TrioThread
from fuse import mountpoint as points
from fuse.handles import Handle, Handles
from fuse.mount import Mount
from tests.fuse.conftest import MountFactory
from tests.fuse.store import HostOnDisk, MemoryBackend, errno_of, hash_of

_DAEMON = textwrap.dedent("""
    import sys, time
    from pathlib import Path
    import trio
    from core.loops import TrioThread
    from fuse.mount import Mount
    from tests.fuse.store import HostOnDisk, MemoryBackend
    host = HostOnDisk(Path(sys.argv[1]))
    host.arenas["docs"].real(b"file", b"data")
    engine = TrioThread("engine")
    engine.start(trio.sleep_forever)
    backend = MemoryBackend(host)
    Mount(Path(sys.argv[2]), host.global_db, host.configs, backend, engine, host.connected).start()
    print("ready", flush=True)
    sys.stdin.read()
""")


def _daemon(base: Path, point: Path) -> subprocess.Popen[str]:
    daemon = subprocess.Popen(
        [sys.executable, "-c", _DAEMON, base, point],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert daemon.stdout is not None
    assert daemon.stdout.readline() == "ready\n"
    return daemon


def _end(daemon: subprocess.Popen[str]) -> None:
    daemon.kill()
    daemon.communicate()


def test_what_a_killed_daemon_left_is_detached_and_mounted_again(
    tmp_path: Path, mount_of: MountFactory
) -> None:
    point = tmp_path / "mnt"
    _end(_daemon(tmp_path / "theirs", point))
    assert errno_of(lambda: os.stat(point)) == errno.ENOTCONN
    host = HostOnDisk(tmp_path / "ours")
    host.arenas["docs"].real(b"file", b"ours")
    mount_of(host, MemoryBackend(host))
    assert (point / "docs/file").read_bytes() == b"ours"
    assert len(points.mounts_at(point)) == 1


def test_a_mount_of_a_running_daemon_is_left_alone(
    tmp_path: Path, host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory
) -> None:
    daemon = _daemon(tmp_path / "theirs", tmp_path / "mnt")
    try:
        with pytest.raises(StoreError, match="running"):
            mount_of(host, backend)
        assert (tmp_path / "mnt/docs/file").read_bytes() == b"data"
    finally:
        _end(daemon)


def test_a_directory_with_files_is_not_hidden(
    tmp_path: Path, host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory
) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "mnt/precious").touch()
    with pytest.raises(StoreError, match="not empty"):
        mount_of(host, backend)
    assert not points.mounts_at(tmp_path / "mnt")


def test_a_process_has_one_mount(
    tmp_path: Path, host: HostOnDisk, backend: MemoryBackend, mounted: Mount, engine: TrioThread
) -> None:
    other = Mount(tmp_path / "second", host.global_db, host.configs, backend, engine, host.connected)
    with pytest.raises(StoreError, match="already"):
        other.start()


def test_it_can_be_stopped_and_started_again(
    host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory
) -> None:
    host.arenas["docs"].real(b"file", b"data")
    for _ in range(3):
        mounted = mount_of(host, backend)
        assert (mounted.mountpoint / "docs/file").read_bytes() == b"data"
        mounted.stop()
        assert not points.mounts_at(mounted.mountpoint)
        assert mounted.health == ""


def test_a_mount_in_use_is_detached_naming_who_uses_it(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount, caplog: pytest.LogCaptureFixture
) -> None:
    host.arenas["docs"].real(b"file", b"data")
    script = f"exec 3< '{mounted.mountpoint}/docs/file'; echo open; exec sleep 60"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as user:
        try:
            assert user.stdout is not None
            assert user.stdout.readline() == "open\n"
            with caplog.at_level(logging.WARNING):
                mounted.stop(1.5)
            assert f"({user.pid})" in caplog.text
            assert not points.mounts_at(mounted.mountpoint)
        finally:
            user.kill()


def test_a_stop_does_not_wait_for_a_hanging_read(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    host.arenas["docs"].online(b"file", b"data")
    backend.hang = True
    path = mounted.mountpoint / "docs/file"
    with subprocess.Popen(["cat", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as reader:
        assert backend.hung.acquire(timeout=10)
        mounted.stop(5.0)
        assert reader.wait(5) != 0
    assert not points.mounts_at(mounted.mountpoint)


def test_an_unmount_while_a_file_is_being_closed_is_nothing_to_warn_of(
    host: HostOnDisk,
    backend: MemoryBackend,
    mounted: Mount,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    releasing, unmounted, pop = threading.Event(), threading.Event(), Handles.pop

    def slowly(handles: Handles, number: int) -> Handle | None:
        releasing.set()
        assert unmounted.wait(10)
        return pop(handles, number)

    monkeypatch.setattr(Handles, "pop", slowly)
    host.arenas["docs"].real(b"file", b"data")
    with open(mounted.mountpoint / "docs/file", "rb") as file:
        assert file.read() == b"data"
    assert releasing.wait(10)
    assert points.unmount(mounted.mountpoint)
    unmounted.set()
    assert mounted.wait_ended(5)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_unmount_by_somebody_else_shows_in_the_health(
    host: HostOnDisk, backend: MemoryBackend, mounted: Mount
) -> None:
    assert points.unmount(mounted.mountpoint)
    assert mounted.wait_ended(5)
    assert "ended" in mounted.health


def test_a_missing_database_is_an_error_and_leaves_no_mount(
    tmp_path: Path, host: HostOnDisk, backend: MemoryBackend, engine: TrioThread
) -> None:
    mount = Mount(tmp_path / "mnt", tmp_path / "none.db", host.configs, backend, engine, host.connected)
    with pytest.raises(StoreError, match=r"none\.db"):
        mount.start()
    assert not points.mounts_at(tmp_path / "mnt")


def test_without_the_hooks_it_works_the_same(
    host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fuse.libfuse._SET", ("destroy",))  # a layout that pyfuse3 does not have
    docs = host.arenas["docs"]
    data = os.urandom(300_000)
    backend.contents[hash_of(data)] = data
    docs.online(b"d/online", data)
    docs.real(b"d/real", b"data")
    mounted = mount_of(host, backend)
    assert sorted(os.listdir(mounted.mountpoint / "docs/d")) == ["online", "real"]
    assert (mounted.mountpoint / "docs/d/online").read_bytes() == data
    assert os.statvfs(mounted.mountpoint).f_blocks
