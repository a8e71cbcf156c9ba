"""``realize tui``: the daemon with its dashboard, or alone; signals, start and stop."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from types import FrameType

from app.host import Host
from core import config as configs
from core.config import Config
from core.errors import ConfigError, StoreLockedError

_log = logging.getLogger("realize.app.daemon")

READY = "realize: ready"
_LOOK_S = 0.5


def run(config: Config, *, ui: bool) -> int:
    """Run the daemon until it is told to stop; returns the exit code. Main thread.

    With ``ui``, where a daemon of this config already runs, its dashboard is shown instead.

    Raises:
        RealizeError: it could not start.
    """
    for warning in config.warnings:
        _log.warning("%s", warning)
    if ui:
        return _run_dashboard(config)
    return _run_alone(config)


def _say_deferred(config: Config) -> None:
    keys = configs.deferred_keys(config)
    if keys:
        _log.info("accepted, but without effect in this version: %s", ", ".join(keys))


# -- with the dashboard


def _run_dashboard(config: Config) -> int:
    from app.bridge import Bridge
    from app.tui.app import RealizeApp
    from app.tui.attach import run_attached

    host = Host(config)
    try:
        host.start()
    except StoreLockedError:
        return run_attached(config.node.socket)
    _say_deferred(config)
    try:
        app = RealizeApp(Bridge(host.loop, host.service), title=config.node.name, attached=False)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: app.request_stop())
        code = app.run()
    finally:
        host.stop()
    return app.return_code or 0 if code is None else code


# -- alone


class _Signals:
    """What the process was told: to stop, or to read its config again."""

    def __init__(self) -> None:
        self.stop = False
        self.reload = False
        self._wake = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_reload)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop:
            os._exit(128 + number)
        self.stop = True
        self._wake.set()

    def _on_reload(self, number: int, frame: FrameType | None) -> None:
        self.reload = True
        self._wake.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a signal, or for a while."""
        self._wake.wait(timeout_s)
        self._wake.clear()


def _run_alone(config: Config) -> int:
    signals = _Signals()
    host = Host(config)
    host.start()
    _say_deferred(config)
    _log.info("started as %s, mount %s", config.node.name, config.node.mount or "none")
    print(READY, flush=True)
    reload = False
    while not signals.stop and not reload and not host.loop.ended.is_set():
        signals.wait(_LOOK_S)
        reload = signals.reload and _is_usable(config)
        signals.reload = False
    died = host.loop.ended.is_set()
    _log.info("stopping")
    host.stop()
    if died:
        _log.error("the engine ended by itself; please report what is above")
        return 1
    if reload and not signals.stop:
        _log.info("starting again with the changed config")
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return 0


def _is_usable(config: Config) -> bool:
    try:
        configs.load(config.path, offline_ok=True, overrides=config.overrides)
    except ConfigError as error:
        for problem in error.problems:
            _log.error("config not taken over: %s", problem)
        return False
    return True
