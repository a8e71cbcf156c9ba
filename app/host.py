"""Everything of a running daemon but its screen: engine thread, network, control socket, mount.

The composition root. Started and stopped in order, each step with a deadline (spec 2 §Threads).
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import trio

from app.network import HostNetwork
from core.config import Config
from core.connected import ConnectedPeers
from core.engine import Engine
from core.errors import EngineStoppedError, NoSpaceError, RealizeError, StoreError
from core.loops import TrioThread
from core.mounting import MountService
from core.service import Service
from core.types import PeerKey
from net import identity
from net.control import ControlServer

if TYPE_CHECKING:
    from fuse.mount import Mount

_log = logging.getLogger("realize.app.host")

SWITCH_S = 0.0005
"""LIMIT: how long a thread holds the interpreter: mount latency is UI time (spec 2 §Threads)."""
_UNMOUNT_S = 5.0
_ENGINE_STOP_S = 20.0


class Host:
    """A daemon in this process. `start` and `stop` are called by the main thread."""

    def __init__(self, config: Config) -> None:
        """Make the host; nothing is opened before `start`."""
        self.config = config
        self.loop = TrioThread("engine")
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._connected = ConnectedPeers()
        self._service: Service | None = None
        self._engine: Engine | None = None
        self._backend: MountService | None = None
        self._mount: Mount | None = None

    @property
    def service(self) -> Service:
        """The engine's interface; once started."""
        if self._service is None:
            raise EngineStoppedError("the engine is not running")
        return self._service

    def start(self) -> None:
        """Open the databases, run engine and network, mount; returns when everything answers.

        Raises:
            RealizeError: a step failed; what was started is stopped again.
        """
        sys.setswitchinterval(SWITCH_S)
        self.loop.start(self._main)
        self._started.wait()
        if self._failure is not None:
            self.loop.join(_ENGINE_STOP_S)
            raise self._failure
        # What start made lives as long as the process: no collection has to look at it again.
        gc.collect()
        gc.freeze()
        try:
            self._start_mount()
        except BaseException:
            self.stop()
            raise

    async def _main(self) -> None:
        try:
            await self._run()
        except* (RealizeError, OSError) as group:
            error = _first(group)
            if self._started.is_set():
                raise
            self._failure = error
        finally:
            self._started.set()

    async def _run(self) -> None:
        config = self.config
        own = identity.load(config.node.key)
        keys = _peer_keys(config)
        engine = self._engine = Engine(config, own.key, keys)
        network = HostNetwork(engine, own, self._connected)
        engine.network = network
        for arena in engine.arenas.values():
            self._connected.publish_blobs(arena.name, arena.blobs.open_ranges, arena.blobs.any_open)
        service = self._service = Service(engine, identity.short_form(own.fingerprint), self._connected)
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(engine.run)
                self._backend = MountService(engine, service.mark_apply, service.status_json)
                await nursery.start(self._backend.run)
                await nursery.start(network.peers.run)
                await nursery.start(ControlServer(service, config.node.socket).run)
                self._started.set()
                await trio.sleep_forever()
        finally:
            service.close()

    def _start_mount(self) -> None:
        if self.config.node.mount is None or self._engine is None or self._backend is None:
            return
        from fuse.mount import Mount

        mount = Mount(
            self.config.node.mount,
            self.config.cache_db,
            self.config.arenas,
            self._backend,
            self.loop,
            self._connected,
            allow_other=self.config.node.allow_other,
        )
        # Before it is mounted: the kernel must not remember what a change has already outdated.
        for arena in self._engine.arenas.values():
            arena.cache.listen(mount.invalidate)
        mount.start()
        self._mount = mount
        self._engine.mounted_at = str(self.config.node.mount)

    def stop(self) -> None:
        """Unmount, close the connections, checkpoint and close, in this order; returns when done."""
        if self._mount is not None:
            self._mount.stop(_UNMOUNT_S)
            self._mount = None
        self.loop.stop()
        if not self.loop.join(_ENGINE_STOP_S):
            _log.error("the engine did not stop within %s s; what it had recorded is safe", _ENGINE_STOP_S)


def _peer_keys(config: Config) -> dict[str, PeerKey]:
    keys: dict[str, PeerKey] = {}
    for peer in config.peers:
        keys[peer.name] = identity.parse_certificate(peer.cert_pem, source=f"peer {peer.name}").key
    return keys


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, OSError):
        return _of_the_system(error)
    return error


def _of_the_system(error: OSError) -> StoreError:
    at = os.fsdecode(error.filename) if error.filename else ""
    text = f"the daemon cannot start: {at + ': ' if at else ''}{error.strerror or error}"
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            wrapped: StoreError = NoSpaceError(text, hint="free space on the disk of the workdirs")
        case errno.EROFS:
            wrapped = StoreError(text, hint="that filesystem is read-only: mount it for writing")
        case _:
            wrapped = StoreError(text, hint="run `realize doctor`")
    wrapped.__cause__ = error
    return wrapped
