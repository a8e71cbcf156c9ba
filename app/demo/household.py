"""A household of real daemons on loopback: configs, child processes, mounts, and their end.

Every peer lives in a directory of its own below the household's. Nothing outside it is touched, only
processes started here are ended, and no mount is left behind.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import tomlkit
from tomlkit.items import AoT

LOOPBACK = "127.0.0.1"
READY_LINE = "realize: ready"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
PORTS = (20_000, 32_000)
"""LIMIT: below the kernel's range for outgoing connections (ip_local_port_range, from 32768)."""


class HouseholdError(Exception):
    """A daemon or a command of the household did not do what it should; the text has its last lines."""


@dataclass(frozen=True)
class ArenaPlan:
    """An arena of one peer. ``options`` are further keys of its ``[[arena]]`` table."""

    name: str
    datadir: bool = True
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class PeerPlan:
    """What a peer is configured with. ``wrapper`` is a command that its daemon is run by."""

    name: str
    arenas: Sequence[ArenaPlan]
    listen: bool = True
    mount: bool = True
    wrapper: Sequence[str] = ()


def wait_until(
    condition: Callable[[], bool], timeout_s: float, what: str, *, every_s: float = 0.005
) -> float:
    """Wait until ``condition()`` holds and return the seconds that took.

    Raises:
        TimeoutError: it did not within ``timeout_s``; the message names ``what``.
    """
    started_s = time.monotonic()
    while not condition():
        if time.monotonic() - started_s > timeout_s:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(every_s)
    return time.monotonic() - started_s


def free_port() -> int:
    """Return a loopback port that nobody listens on now, and that no outgoing connection will be given."""
    while True:
        port = random.randrange(*PORTS)
        try:
            with socket.create_server((LOOPBACK, port)):
                return port
        except OSError:
            continue


def is_mounted(path: Path) -> bool:
    """Say whether something is mounted at ``path``, without touching the mount itself."""
    wanted = os.fsencode(path)
    with open("/proc/self/mountinfo", "rb") as table:
        return any(line.split(b" ")[4].replace(b"\\040", b" ") == wanted for line in table)


def unmount(path: Path) -> None:
    """Detach whatever is mounted at ``path``, also when it hangs."""
    for command in (["fusermount3", "-uz", str(path)], ["umount", "-l", str(path)]):
        if not is_mounted(path):
            return
        subprocess.run(command, check=False, capture_output=True)


def realize_command() -> list[str]:
    """Return the command line that runs this program."""
    script = Path(sys.executable).parent / "realize"
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from app.cli import main; main()"]


class Peer:
    """One peer: its directory, its config and, while started, its daemon process."""

    def __init__(self, plan: PeerPlan, home: Path) -> None:
        """Write the config and identity below ``home`` with ``realize init``."""
        self.name = plan.name
        self.home = home
        self.config = home / "realize.toml"
        self.mount = home / "mnt"
        self.socket = home / "run" / "control.sock"
        self.log_path = home / "daemon.log"
        self.port = free_port() if plan.listen else None
        self.process: subprocess.Popen[bytes] | None = None
        self._plan = plan
        self._ready = threading.Event()
        self._init()

    def _init(self) -> None:
        arguments = ["init", "--dir", str(self.home), "--name", self.name]
        for arena in self._plan.arenas:
            arguments += ["--arena", arena.name]
        if self.port is not None:
            arguments += ["--listen", f"{LOOPBACK}:{self.port}"]
        self._checked(self.run(*arguments, with_config=False))
        self.mount.mkdir(exist_ok=True)
        self.edit_config(self._apply_plan)

    def _apply_plan(self, document: tomlkit.TOMLDocument) -> None:
        node = document["node"]
        assert isinstance(node, dict)
        if self._plan.mount:
            node["mount"] = str(self.mount)
        else:
            node.pop("mount", None)
        node["socket"] = str(self.socket)
        if self.port is None:
            node["listen"] = []
        arenas = document["arena"]
        assert isinstance(arenas, AoT)
        for plan in self._plan.arenas:
            table = next(arena for arena in arenas if arena["name"] == plan.name)
            if not plan.datadir:
                table.pop("datadir", None)
            table.update(plan.options)

    def edit_config(self, change: Callable[[tomlkit.TOMLDocument], None]) -> None:
        """Read the config, let ``change`` alter it, write it; takes effect at the next start."""
        document = tomlkit.parse(self.config.read_text())
        change(document)
        self.config.write_text(tomlkit.dumps(document))

    def certificate(self) -> str:
        """Return what ``realize id`` prints."""
        return self._checked(self.run("id")).stdout

    def introduce(self, other: Peer, arenas: Sequence[str] | None = None, *, address: bool = True) -> None:
        """Add ``other`` to this peer's config; ``arenas`` are those it may see (None: all)."""

        def add(document: tomlkit.TOMLDocument) -> None:
            table = tomlkit.table()
            table["name"] = other.name
            if address and other.port is not None:
                table["address"] = f"{LOOPBACK}:{other.port}"
            table["cert"] = tomlkit.string(other.certificate(), multiline=True)
            if arenas is not None:
                table["arenas"] = list(arenas)
            peers = document.get("peer")
            if peers is None:
                peers = document["peer"] = tomlkit.aot()
            peers.append(table)

        self.edit_config(add)

    def datadir(self, arena: str | None = None) -> Path:
        """Return the directory of real files of an arena (of the first one by default)."""
        return self.home / (arena or self._plan.arenas[0].name) / "data"

    def view(self, arena: str | None = None) -> Path:
        """Return the directory of an arena in the mount (of the first one by default)."""
        return self.mount / (arena or self._plan.arenas[0].name)

    def run(
        self, *arguments: str | bytes, with_config: bool = True, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the program with this peer's config and return how it ended."""
        options = ["--config", str(self.config)] if with_config else []
        return subprocess.run(
            [*realize_command(), *options, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout_s,
            env=self.environment(),
        )

    def command(self, *arguments: str | bytes, timeout_s: float = 60.0) -> str:
        """Run a command that has to succeed and return what it prints.

        Raises:
            HouseholdError: it ended with another code than 0.
        """
        return self._checked(self.run(*arguments, timeout_s=timeout_s)).stdout

    def _checked(self, done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
        if done.returncode:
            words = " ".join(os.fsdecode(word) for word in done.args[1:])
            raise HouseholdError(
                f"{self.name}: realize {words}: exit {done.returncode}: {done.stderr[-2000:]}"
            )
        return done

    def status(self) -> dict[str, Any]:
        """Return what ``status --json`` prints."""
        status: dict[str, Any] = json.loads(self.command("status", "--json"))
        return status

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Wait until the daemon has nothing left to do."""
        self.command("status", "--wait-idle", f"{timeout_s:g}", timeout_s=timeout_s + 30)

    def daemon_command(self, *arguments: str) -> list[str]:
        """Return the command line of this peer's daemon."""
        return [*realize_command(), "--config", str(self.config), "tui", *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment for this peer's commands: nothing of the caller's own set-up."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("REALIZE_")}
        kept.pop("JOURNAL_STREAM", None)
        return kept | {"XDG_RUNTIME_DIR": str(self.home / "run"), "XDG_STATE_HOME": str(self.home / "state")}

    def spawn(self, *arguments: str) -> None:
        """Start the daemon without waiting for it. Its log has sd-daemon priority prefixes."""
        if self.process is not None and self.process.poll() is None:
            raise HouseholdError(f"{self.name} runs already")
        self._ready = threading.Event()
        with open(self.log_path, "ab") as log:
            found = os.fstat(log.fileno())
            self.process = subprocess.Popen(
                [*self._plan.wrapper, *self.daemon_command("--no-ui", *arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self.environment() | {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
                start_new_session=True,
            )
        threading.Thread(target=self._follow, args=(self.process, self._ready), daemon=True).start()

    @staticmethod
    def _follow(process: subprocess.Popen[bytes], ready: threading.Event) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                if line.decode(errors="replace").strip() == READY_LINE:
                    ready.set()

    @property
    def is_ready(self) -> bool:
        """Whether the running daemon has said that it is ready."""
        return self._ready.is_set()

    def start(self, *arguments: str, timeout_s: float = START_TIMEOUT_S) -> float:
        """Start the daemon and wait until it is ready; returns the seconds that took.

        Raises:
            HouseholdError: it ended instead, or was not ready in time.
        """
        started_s = time.monotonic()
        self.spawn(*arguments)
        return self.wait_ready(timeout_s) and time.monotonic() - started_s

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> float:
        """Wait until the daemon is ready; returns the seconds that took."""
        process = self.process
        assert process is not None
        try:
            took_s = wait_until(
                lambda: self._ready.is_set() or process.poll() is not None, timeout_s, "ready"
            )
        except TimeoutError as error:
            raise HouseholdError(
                f"{self.name} was not ready in {timeout_s:g} s: {self.log_tail()}"
            ) from error
        if not self._ready.is_set():
            raise HouseholdError(f"{self.name} ended with {process.returncode}: {self.log_tail()}")
        return took_s

    def log(self) -> str:
        """Return everything the daemon has logged so far, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_tail(self, characters: int = 3000) -> str:
        """Return the end of the log."""
        return self.log()[-characters:]

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """Stop the daemon in order (SIGTERM) and return its exit code; None if none was running.

        Raises:
            HouseholdError: it had to be killed.
        """
        process = self.process
        if process is None:
            return None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise HouseholdError(
                    f"{self.name} did not stop in {timeout_s:g} s: {self.log_tail()}"
                ) from None
        self.process = None
        return process.returncode

    def kill(self) -> None:
        """End the daemon at once (SIGKILL); its mount is left as it is."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        """End the daemon however it takes, and detach its mount."""
        try:
            self.stop()
        finally:
            unmount(self.mount)


class Household:
    """Peers that know each other, in one directory; a context that cleans up after itself."""

    def __init__(self, directory: Path | None = None, *, keep: bool = False) -> None:
        """Use ``directory``, or a new one in the temporary directory; ``keep`` leaves the files."""
        # Socket addresses end at 107 bytes: a short prefix leaves room for them.
        self.directory = Path(directory or tempfile.mkdtemp(prefix="rz-")).resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        self.peers: list[Peer] = []
        self._keep = keep

    def add(self, plan: PeerPlan) -> Peer:
        """Make a peer; introduce it to others afterwards."""
        peer = Peer(plan, self.directory / plan.name)
        self.peers.append(peer)
        return peer

    def introduce_all(self) -> None:
        """Let every peer know every other."""
        for peer in self.peers:
            for other in self.peers:
                if other is not peer:
                    peer.introduce(other)

    def start(self) -> None:
        """Start all daemons side by side and wait until each is ready."""
        for peer in self.peers:
            peer.spawn()
        for peer in self.peers:
            peer.wait_ready()

    def wait_connected(self, timeout_s: float = 20.0) -> None:
        """Wait until every peer has a connection to every other."""

        def connected(peer: Peer) -> bool:
            return all(other["state"] == "connected" for other in peer.status()["peers"])

        wait_until(lambda: all(map(connected, self.peers)), timeout_s, "all peers connected", every_s=0.05)

    def close(self) -> None:
        """End every daemon, detach every mount, remove the files unless they are to be kept."""
        failures: list[str] = []
        for peer in self.peers:
            try:
                peer.close()
            except HouseholdError as error:
                failures.append(str(error))
        if not self._keep and not any(is_mounted(peer.mount) for peer in self.peers):
            for peer in self.peers:
                shutil.rmtree(peer.home, ignore_errors=True)
            if not any(self.directory.iterdir()):
                self.directory.rmdir()
        if failures:
            raise HouseholdError("; ".join(failures))

    def __enter__(self) -> Self:
        """Give the household."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
