"""Checks of the directories: filesystem, what it can do, space, databases, and what inotify must watch."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

from app import words
from app.doctor.check import Check
from app.doctor.machine import unescaped
from core import db
from core.config import ArenaConfig, Config
from core.errors import StoreError

_XATTR = "user.realize.doctor"
_PROBE_BYTES = 4 << 20
_LEAST_FREE_BYTES = 256 << 20
"""LIMIT: with less, a database cannot grow through a scan and every fetch waits."""

_COUNT_S = 5.0
"""LIMIT: seconds spent on counting directories; beyond, the count is a lower bound."""

_SPARE_WATCHES = 8192
"""LIMIT: watches left to the other programs of the user."""

_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "afs"}
"""Filesystems on which inotify does not tell what other machines do."""

_POOR = {"vfat", "exfat", "msdos"}
"""Filesystems without extended attributes, permissions or sparse files."""


def checks(config: Config, *, is_running: bool) -> list[Check]:
    """Check each arena's directories, the databases, and the inotify limits against all of them."""
    found: list[Check] = []
    for arena in config.arenas:
        found += _arena(arena)
    if not is_running:
        databases = [(config.cache_db, "global")]
        databases += [(arena.workdir / "arena.db", "arena") for arena in config.arenas]
        found += [_database(path, kind) for path, kind in databases if path.exists()]
    return [*found, *_inotify(config)]


def _arena(arena: ArenaConfig) -> Iterator[Check]:
    for role, directory in (("workdir", arena.workdir), ("datadir", arena.datadir)):
        if directory is None:
            continue
        name = f"{role} of {arena.name}"
        place = _existing(directory)
        if place != directory and role == "datadir":
            fix = f"attach the disk that holds it, or make {directory}"
            yield Check(name, False, f"{directory} is missing; the arena is offline", fix)
            continue
        yield _filesystem(name, place)
        if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
            yield Check(name, False, f"{place} is not writable", f"sudo chown {os.getuid()} {place}")
            continue
        yield from _abilities(name, place)
        if role == "workdir":
            yield _space(name, place)


def _existing(path: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    return next((place for place in (path, *path.parents) if place.is_dir()), Path("/"))


def _filesystem(name: str, place: Path) -> Check:
    kind = filesystem_of(place)
    label = f"filesystem, {name}"
    if kind in _REMOTE or kind.startswith("fuse"):
        detail = f"{kind}: changes made by other machines are seen at the next scan only"
        return Check(label, False, detail, "keep arenas on a local disk")
    if kind in _POOR:
        fix = "keep arenas on ext4, xfs or btrfs"
        return Check(label, False, f"{kind}: no permissions, attributes or sparse files", fix)
    return Check(label, True, kind or "unknown")


def filesystem_of(place: Path) -> str:
    """Return the type of the filesystem that ``place`` is on, "" when it is not known."""
    target = os.fsencode(os.path.realpath(place))
    best, kind = b"", ""
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            fields, _, rest = line.partition(b" - ")
            point = unescaped(fields.split(b" ")[4])
            inside = target == point or target.startswith(point.rstrip(b"/") + b"/")
            if inside and len(point) >= len(best):
                best, kind = point, rest.split(b" ")[0].decode()
    return kind


def _abilities(name: str, place: Path) -> Iterator[Check]:
    """Check on a nameless file what the directory's filesystem can do."""
    try:
        descriptor = os.open(place, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        # Some filesystems have no nameless files; then nothing is left in the user's directory either.
        if error.errno in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            yield Check(f"xattrs, {name}", True, "not looked at: the filesystem has no O_TMPFILE")
        else:
            yield Check(f"xattrs, {name}", False, f"{place}: {error.strerror}", "make room or get permission")
        return
    try:
        yield _xattrs(name, descriptor)
        yield _sparse(name, descriptor)
    finally:
        os.close(descriptor)


def _xattrs(name: str, descriptor: int) -> Check:
    try:
        os.setxattr(descriptor, _XATTR, b"1")
    except OSError as error:
        fix = "mount that filesystem with user_xattr; without, marks are set with `realize mark` only"
        return Check(f"xattrs, {name}", False, f"extended attributes: {error.strerror}", fix)
    return Check(f"xattrs, {name}", True, "extended attributes work")


def _sparse(name: str, descriptor: int) -> Check:
    label = f"sparse files, {name}"
    try:
        os.ftruncate(descriptor, _PROBE_BYTES)
        os.pwrite(descriptor, b"x", _PROBE_BYTES - 1)
    except OSError as error:
        return Check(label, False, str(error.strerror), "free space on that disk")
    if os.fstat(descriptor).st_blocks * 512 < _PROBE_BYTES:
        return Check(label, True, "sparse files work")
    fix = "keep workdirs on ext4, xfs or btrfs"
    return Check(label, False, "a partly fetched file takes its whole size", fix)


def _space(name: str, place: Path) -> Check:
    figures = os.statvfs(place)
    free, total = figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize
    detail = f"{words.human_bytes(free)} free of {words.human_bytes(total)}"
    return Check(
        f"disk space, {name}", free >= _LEAST_FREE_BYTES, detail, f"free space on the disk of {place}"
    )


def _database(path: Path, kind: str) -> Check:
    name = f"database {path}"
    try:
        problems = db.examine(path, kind)
    except StoreError as error:
        return Check(
            name, False, str(error), error.hint or f"stop the daemon and {db.rebuilding(path, kind)}"
        )
    if problems:
        fix = f"stop the daemon and {db.rebuilding(path, kind)}"
        return Check(name, False, f"damaged: {problems[0]}", fix)
    return Check(name, True, "whole")


def _inotify(config: Config) -> Iterator[Check]:
    datadirs = [arena.datadir for arena in config.arenas if arena.datadir is not None]
    if not datadirs:
        return
    needed, is_whole = _count_directories(datadirs)
    limit = _kernel_limit("max_user_watches")
    about = "" if is_whole else "at least "
    wanted = max(needed * 2, needed + _SPARE_WATCHES)
    yield Check(
        "inotify watches",
        limit >= needed,
        f"{about}{needed} directories to watch, {limit} allowed",
        _sysctl("max_user_watches", wanted),
    )
    instances = _kernel_limit("max_user_instances")
    yield Check(
        "inotify instances",
        instances > len(datadirs),
        f"{len(datadirs)} needed, {instances} allowed to all programs of a user",
        _sysctl("max_user_instances", 512),
    )


def _sysctl(name: str, value: int) -> str:
    file = "/etc/sysctl.d/60-realize.conf"
    return f"echo fs.inotify.{name}={value} | sudo tee -a {file}; sudo sysctl --system"


def _kernel_limit(name: str) -> int:
    try:
        return int(Path(f"/proc/sys/fs/inotify/{name}").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def _count_directories(roots: list[Path]) -> tuple[int, bool]:
    """Return how many directories there are, and whether all were counted."""
    until_s = time.monotonic() + _COUNT_S
    count = 0
    pending = [os.fsencode(root) for root in roots]
    while pending:
        count += 1
        if time.monotonic() > until_s:
            return count + len(pending), False
        try:
            with os.scandir(pending.pop()) as entries:
                pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # gone or not readable: not watched either
    return count, True
