"""The control socket as a file: who may use it, stale ones, long paths."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio

from core.errors import NoDaemonError, StoreError

_CREDENTIALS = struct.Struct("3i")
_BACKLOG = 16
_NOBODY = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR})


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of a path that fits into a socket address (108 bytes), however long the path is."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def listen_unix(path: Path) -> trio.socket.SocketType:
    """Listen at ``path``, mode 0600; missing directories are made with mode 0700, a stale socket replaced.

    Raises:
        StoreError: another daemon answers there, or something else is in the way.
    """
    try:
        _make_directory(path.parent)
        await _remove_stale(path)
        sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as name:
                await sock.bind(name)
            # Nobody can connect before listen, so nobody gets in with the wider mode.
            _restrict(path)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
    except OSError as error:
        raise StoreError(f"cannot listen on {path}: {error.strerror}") from error
    return sock


def _make_directory(path: Path) -> None:
    missing = []
    while not path.exists():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=0o700, exist_ok=True)


def _restrict(path: Path) -> None:
    path.chmod(0o600)


def _is_there(path: Path) -> bool:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise StoreError(f"cannot listen on {path}: it is not a socket", hint="choose another [node].socket")
    return True


def _unlink(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()


async def _remove_stale(path: Path) -> None:
    if not _is_there(path):
        return
    try:
        stream = await connect_unix(path)
    except NoDaemonError:
        _unlink(path)
    else:
        await stream.aclose()
        raise StoreError(f"another daemon answers on {path}", hint="stop it, or choose another [node].socket")


async def connect_unix(path: Path) -> trio.SocketStream:
    """Connect to the daemon that listens at ``path``.

    Raises:
        NoDaemonError: there is none, or it is another user's.
    """
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as name:
            await sock.connect(name)
    except OSError as error:
        sock.close()
        if error.errno in _NOBODY:
            raise NoDaemonError(
                f"no daemon answers on {path}",
                hint="`realize tui` starts one, `realize tui --no-ui` without a screen",
            ) from None
        raise NoDaemonError(
            f"cannot reach the daemon on {path}: {error.strerror}", hint="run as the user whose daemon it is"
        ) from error
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


def peer_uid(stream: trio.SocketStream) -> int:
    """Return the user that the other end of a unix socket ran as when it connected (unix(7))."""
    raw = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return int(uid)
