"""The mountpoint: preparing it, freeing it from a dead mount, unmounting, and who holds it.

Blocking; not for the mount's or the engine's thread.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from core.errors import StoreError

_log = logging.getLogger("realize.fuse.mountpoint")

SUBTYPE = "realize"
FSTYPE = f"fuse.{SUBTYPE}"

_MNT_DETACH = 2
_READ_AHEAD_KIB = 1024
"""LIMIT: read-ahead of the mount: requests of 1 MiB give five times the throughput of 128 KiB (spec 6)."""
_TOOL_S = 10
_STACKED = 8
"""LIMIT: mounts on top of each other that are detached."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


class MountInfo(NamedTuple):
    """A line of ``/proc/self/mountinfo``; ``device`` is ``MAJOR:MINOR``."""

    device: str
    path: bytes
    fstype: str


class HeldBy(NamedTuple):
    """A process that uses the mount."""

    pid: int
    name: str


def mounts_at(path: Path) -> list[MountInfo]:
    """Return what is mounted at a path, the topmost last. Never touches the mounts themselves."""
    wanted = os.fsencode(_absolute(path))
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        parts = fields.split(b" ")
        mounted = _unescape(parts[4])
        if mounted == wanted:
            found.append(MountInfo(parts[2].decode(), mounted, rest.split(b" ")[0].decode()))
    return found


def _absolute(path: Path) -> Path:
    # Only the parent is resolved: to look at a dead mountpoint itself fails.
    return path.parent.resolve() / path.name


def _unescape(text: bytes) -> bytes:
    for code in (b"040", b"011", b"012", b"134"):
        text = text.replace(b"\\" + code, bytes([int(code, 8)]))
    return text


def prepare(path: Path) -> None:
    """Make the mountpoint an empty directory with nothing mounted; a dead mount of ours is detached.

    Raises:
        StoreError: something else is mounted there, it is not an empty directory, or cannot be made.
    """
    for _ in range(_STACKED):
        mounts = mounts_at(path)
        if not mounts:
            break
        if mounts[-1].fstype != FSTYPE:
            raise StoreError(
                f"{path} is the mountpoint of another filesystem ({mounts[-1].fstype})",
                hint="choose another directory for [node].mount, or unmount that one",
            )
        if not _is_dead(path):
            raise StoreError(
                f"{path} is mounted by another realize that is running",
                hint="stop it first, or choose another directory for [node].mount",
            )
        _log.warning("detaching the mount that a crashed daemon left at %s", path)
        if not detach(path):
            raise StoreError(f"the dead mount at {path} cannot be detached", hint=f"sudo umount -l {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        empty = not any(path.iterdir())
    except OSError as error:
        raise StoreError(f"mountpoint {path} cannot be used: {error.strerror}") from error
    if not empty:
        raise StoreError(
            f"mountpoint {path} is not empty: mounting would hide what is in it",
            hint="move the files away, or choose another directory for [node].mount",
        )


def _is_dead(path: Path) -> bool:
    try:
        # The kernel answers stat from its cache also when nobody serves the mount; this it always asks for.
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    return False


def raise_read_ahead(path: Path) -> bool:
    """Raise the read-ahead of the mount where permitted; says whether it was."""
    mounts = mounts_at(path)
    if not mounts:
        return False
    try:
        Path(f"/sys/class/bdi/{mounts[-1].device}/read_ahead_kb").write_text(str(_READ_AHEAD_KIB))
    except OSError as error:
        _log.info("read-ahead of the mount stays as it is: %s", error)
        return False
    return True


def unmount(path: Path) -> bool:
    """Unmount unless busy; says whether it did."""
    return _unmount(path, lazily=False)


def detach(path: Path) -> bool:
    """Take the mount out of the tree, busy or not; says whether it did."""
    return _unmount(path, lazily=True)


def _unmount(path: Path, *, lazily: bool) -> bool:
    target = os.fsencode(_absolute(path))
    if os.geteuid() == 0:
        return int(_libc.umount2(target, _MNT_DETACH if lazily else 0)) == 0
    options = ["-u", "-z"] if lazily else ["-u"]
    try:
        done = subprocess.run(
            ["fusermount3", *options, "--", target], capture_output=True, timeout=_TOOL_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("fusermount3: %s", error)
        return False
    return done.returncode == 0


def holders(path: Path) -> list[HeldBy]:
    """Return the processes that have something below the mountpoint open, or are in it.

    Only names are looked at, so a mount that does not answer does no harm. Others' processes need root.
    """
    prefix = os.fsencode(_absolute(path))
    found = []
    for entry in os.scandir(b"/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _uses(entry.path, prefix):
            try:
                name = Path(os.fsdecode(entry.path), "comm").read_text(errors="replace").strip()
            except OSError:
                continue
            found.append(HeldBy(int(entry.name), name))
    return found


def _uses(process: bytes, prefix: bytes) -> bool:
    links = [process + b"/cwd", process + b"/root"]
    try:
        links += [process + b"/fd/" + name for name in os.listdir(process + b"/fd")]
    except OSError:
        # Not ours to look at, or gone.
        return False
    for link in links:
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target == prefix or target.startswith(prefix + b"/"):
            return True
    return False
