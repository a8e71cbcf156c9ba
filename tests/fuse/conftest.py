"""A host on disk and its mount; every mount is gone after its test, whatever happened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from core.loops import TrioThread
from fuse import mountpoint as points
from fuse.mount import Mount
from tests.fuse.store import HostOnDisk, MemoryBackend

MountFactory = Callable[[HostOnDisk, MemoryBackend], Mount]


@pytest.fixture(autouse=True)
def _needs_fuse() -> None:
    if not os.path.exists("/dev/fuse"):
        if os.environ.get("CI") == "true":
            pytest.fail("/dev/fuse is missing")
        pytest.skip("/dev/fuse is missing")


@pytest.fixture
def engine() -> Iterator[TrioThread]:
    """Give a loop in the place of the engine's."""
    thread = TrioThread("engine")
    thread.start(trio.sleep_forever)
    yield thread
    thread.stop()
    assert thread.join(10)


@pytest.fixture
def host(tmp_path: Path) -> HostOnDisk:
    return HostOnDisk(tmp_path)


@pytest.fixture
def backend(host: HostOnDisk) -> MemoryBackend:
    return MemoryBackend(host)


@pytest.fixture
def mount_of(tmp_path: Path, engine: TrioThread) -> Iterator[MountFactory]:
    """Give a function that mounts a host."""
    mounts: list[Mount] = []
    point = tmp_path / "mnt"

    def make(host: HostOnDisk, backend: MemoryBackend) -> Mount:
        mount = Mount(
            point, host.global_db, host.configs, backend, engine, host.connected, fetch_timeout_s=1.0
        )
        mount.start()
        mounts.append(mount)
        return mount

    yield make
    for mount in mounts:
        mount.stop(5.0)
    while points.mounts_at(point):
        assert points.detach(point)


@pytest.fixture
def mounted(host: HostOnDisk, backend: MemoryBackend, mount_of: MountFactory) -> Mount:
    return mount_of(host, backend)
