"""Checks of the machine: FUSE, mounts, the identity file and ports."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import threading
from pathlib import Path

from app.doctor.check import Check
from core.addresses import parse_address
from core.config import Config
from core.errors import ConfigError

_HANG_S = 3.0
"""LIMIT: a mount that does not answer for this long is called stale."""


def checks() -> list[Check]:
    """Check what every mount needs."""
    return [_fuse_device(), _fusermount()]


def config_checks(config: Config) -> list[Check]:
    """Check the identity file, and whether others may be let into the mount."""
    found = [_identity(config.node.key)]
    if config.node.allow_other:
        found.append(_allow_other())
    return found


def _fuse_device() -> Check:
    device = "/dev/fuse"
    if not os.path.exists(device):
        return Check(
            "fuse device", False, f"{device} does not exist", "sudo modprobe fuse; sudo apt install fuse3"
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return Check("fuse device", False, f"{device} cannot be opened", f"sudo chmod 666 {device}")
    return Check("fuse device", True, device)


def _fusermount() -> Check:
    path = shutil.which("fusermount3")
    if path is not None:
        return Check("fusermount3", True, path)
    if os.geteuid() == 0:
        return Check("fusermount3", True, "not installed; root mounts without it")
    return Check("fusermount3", False, "not installed; only root mounts without it", "sudo apt install fuse3")


def _allow_other() -> Check:
    name, file = "allow_other", "/etc/fuse.conf"
    if os.geteuid() == 0:
        return Check(name, True, "root may always")
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    if any(line.split("#")[0].strip() == "user_allow_other" for line in lines):
        return Check(name, True, f"{file} has user_allow_other")
    return Check(
        name, False, f"{file} has no user_allow_other", f"echo user_allow_other | sudo tee -a {file}"
    )


def _identity(path: Path) -> Check:
    from net import identity

    try:
        own = identity.load(path)
    except ConfigError as error:
        return Check("identity", False, error.problems[0], error.hint)
    return Check("identity", True, f"{path}, fingerprint {identity.short_form(own.fingerprint)}")


def port_checks(config: Config, *, is_running: bool) -> list[Check]:
    """Check that the addresses to listen on can be had; a daemon that runs has them already."""
    if is_running:
        return []
    found = []
    for text in config.node.listen:
        problem, fix = _bind_problem(text)
        detail = problem or "free"
        found.append(Check(f"port {text}", not problem, detail, fix))
    return found


def _bind_problem(text: str) -> tuple[str, str]:
    """Return what keeps an address from being listened on, and the fix; ``""`` when nothing does."""
    host, port = parse_address(text)
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return f"{host} does not resolve: {error.strerror}", "correct [node].listen"
    for family, kind, protocol, _, address in addresses:
        try:
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
        except OSError as error:
            if error.errno == errno.EAFNOSUPPORT:
                continue
            shown = f"{address[0]} port {port}"
            fixes = {
                errno.EADDRINUSE: f"`ss -ltnp 'sport = :{port}'` shows who has it; or change [node].listen",
                errno.EACCES: "choose a port from 1024 up in [node].listen",
            }
            return f"{shown}: {error.strerror}", fixes.get(error.errno or 0, "change [node].listen")
    return "", ""


def mount_checks(config: Config) -> list[Check]:
    """Check the places of the mounts: no dead one there, and a directory to mount on."""
    places = [config.node.mount, *(arena.mountpoint for arena in config.arenas)]
    return [_mount_place(place) for place in places if place is not None]


def _mount_place(place: Path) -> Check:
    name = f"mount {place}"
    unmount = f"fusermount3 -uz {place}"
    outcome = _stat_outcome(place)
    if outcome is None:
        return Check(name, False, "does not answer", unmount)
    if outcome in (errno.ENOTCONN, errno.EIO, errno.ECONNABORTED):
        return Check(name, False, f"a dead mount: {os.strerror(outcome)}", unmount)
    if outcome == errno.ENOENT:
        return Check(name, True, "does not exist; it is made when mounting")
    if outcome:
        return Check(name, False, os.strerror(outcome), f"make {place} a directory of yours")
    if is_mounted(place):
        return Check(name, True, "mounted")
    if not place.is_dir():
        return Check(name, False, "is not a directory", "choose another place for the mount")
    if any(place.iterdir()):
        return Check(name, False, "is not empty; a mount would hide what is in it", f"empty {place}")
    return Check(name, True, "ready")


def _stat_outcome(path: Path) -> int | None:
    """Return the errno of ``stat``, 0 when it works, None when it hangs."""
    outcome: list[int] = []

    def look() -> None:
        try:
            os.stat(path)
            outcome.append(0)
        except OSError as error:
            outcome.append(error.errno or errno.EIO)

    # A daemon thread: a mount that hangs would otherwise keep this process from ending.
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_HANG_S)
    return outcome[0] if outcome else None


def is_mounted(path: Path) -> bool:
    """Say whether something is mounted at exactly ``path``, without touching it."""
    wanted = os.fsencode(os.path.join(os.path.realpath(path.parent), path.name))
    with open("/proc/self/mountinfo", "rb") as mounts:
        return any(unescaped(line.split(b" ")[4]) == wanted for line in mounts)


def unescaped(field: bytes) -> bytes:
    """Return a field of mountinfo with its octal escapes of blanks undone (proc_pid_mountinfo(5))."""
    for code, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(code, char)
    return field
