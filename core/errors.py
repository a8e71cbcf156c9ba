"""The errors Realize raises on purpose, and the tables that map them to exit codes and errnos.

A *bug* is any other exception. Every subclass of `RealizeError` has a row in `EXIT_CODES`, `ERRNOS`
and `WIRE_CODES` (its own or that of a base class below `RealizeError`); a test walks them all.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class RealizeError(Exception):
    """Base of all expected errors. ``str()`` is one line: what, why; `hint` is what to do next."""

    hint: str

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Make the error from its one-line ``message`` and an optional next step."""
        super().__init__(message)
        self.hint = hint


class ConfigError(RealizeError):
    """The configuration is wrong. ``problems`` are complete lines, all that were found."""

    def __init__(self, problems: list[str], *, hint: str = "") -> None:
        """Make the error from the list of all problems found, one line each."""
        super().__init__(problems[0] if len(problems) == 1 else "; ".join(problems), hint=hint)
        self.problems = problems


class UsageError(RealizeError):
    """The command line is wrong."""


class StoreError(RealizeError):
    """A database or a directory of ours cannot be used."""


class StoreLockedError(StoreError):
    """Another process holds the directories. ``pid`` is that process, 0 if unknown."""

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        """Make the error; ``pid`` names the holder."""
        super().__init__(message, hint=hint)
        self.pid = pid


class NoSpaceError(StoreError):
    """The disk or the quota is full."""


NO_ROOM = "no room in the cache"
"""What every `NoRoomError` begins with."""


class NoRoomError(NoSpaceError):
    """The cache may use no more, and nothing of it can be evicted: what was to be stored has to wait."""


class ContentError(RealizeError):
    """Content cannot be had or is not what it should be."""


class NoHolderError(ContentError):
    """No connected peer holds the content."""


class ChangedError(ContentError):
    """The version asked for is not there any more."""


class CorruptError(ContentError):
    """Content does not match its hash."""


class PathError(RealizeError):
    """A path operation failed with a POSIX outcome, ``code`` (an errno)."""

    code: ClassVar[int] = errno.EINVAL


class PathNotFoundError(PathError):
    """No such path, arena or peer."""

    code = errno.ENOENT


class PathExistsError(PathError):
    """The path exists already."""

    code = errno.EEXIST


class NotADirError(PathError):
    """A component is not a directory."""

    code = errno.ENOTDIR


class IsADirError(PathError):
    """The path is a directory."""

    code = errno.EISDIR


class PathInvalidError(PathError):
    """The path is not a valid relative path."""

    code = errno.EINVAL


class PathDeniedError(PathError):
    """The operation is not permitted."""

    code = errno.EPERM


class PathReadOnlyError(PathError):
    """The tree is read-only here."""

    code = errno.EROFS


class NameTooLongError(PathError):
    """A component is longer than 255 bytes."""

    code = errno.ENAMETOOLONG


class NetError(RealizeError):
    """The network failed. ``peer`` is the name of the peer concerned, "" if unknown."""

    def __init__(self, message: str, *, peer: str = "", hint: str = "") -> None:
        """Make the error; ``peer`` names whose connection it was."""
        super().__init__(message, hint=hint)
        self.peer = peer


class AuthError(NetError):
    """The other side is not who it should be."""


class DisconnectedError(NetError):
    """The connection is gone."""


class ProtocolError(NetError):
    """The protocol was broken."""


class LocalProtocolError(ProtocolError):
    """We would have broken it."""


class RemoteProtocolError(ProtocolError):
    """The other side broke it; its connection is closed."""


class RemoteError(NetError):
    """The other side answered a request with an error. ``code`` is its wire code."""

    def __init__(self, message: str, *, code: int, peer: str = "", hint: str = "") -> None:
        """Make the error from what the peer sent."""
        super().__init__(message, peer=peer, hint=hint)
        self.code = code


class NoDaemonError(RealizeError):
    """No daemon answers on the control socket."""


class EngineStoppedError(RealizeError):
    """The engine has ended; nothing can be asked of it."""


class NotYetError(RealizeError):
    """The state asked for was not reached in time."""


class PartialError(RealizeError):
    """Some of what was asked was done."""


EXIT_CODES: dict[type[RealizeError], int] = {
    ConfigError: 78,
    UsageError: 2,
    StoreError: 1,
    ContentError: 1,
    NoHolderError: 5,
    PathError: 1,
    NetError: 1,
    DisconnectedError: 5,
    NoDaemonError: 4,
    EngineStoppedError: 4,
    NotYetError: 75,
    PartialError: 3,
}
"""Exit code of a command that ends with the error (spec 3 §Exit codes)."""

ERRNOS: dict[type[RealizeError], int] = {
    ConfigError: errno.EINVAL,
    UsageError: errno.EINVAL,
    StoreError: errno.EIO,
    NoSpaceError: errno.ENOSPC,
    ContentError: errno.EIO,
    NoHolderError: errno.EHOSTUNREACH,
    PathError: errno.EINVAL,
    NetError: errno.EHOSTUNREACH,
    NoDaemonError: errno.ENOTCONN,
    EngineStoppedError: errno.ENOTCONN,
    NotYetError: errno.EAGAIN,
    PartialError: errno.EIO,
}
"""Errno an application on the mount gets. `PathError` subclasses give their own ``code``."""

WIRE_CODES: dict[type[RealizeError], int] = {
    ConfigError: 1,
    UsageError: 2,
    StoreError: 3,
    NoSpaceError: 4,
    ContentError: 5,
    NoHolderError: 6,
    ChangedError: 7,
    CorruptError: 8,
    PathError: 9,
    PathNotFoundError: 10,
    PathExistsError: 11,
    NotADirError: 12,
    IsADirError: 13,
    PathInvalidError: 14,
    PathDeniedError: 15,
    PathReadOnlyError: 16,
    NameTooLongError: 17,
    NetError: 18,
    DisconnectedError: 19,
    NoDaemonError: 20,
    EngineStoppedError: 21,
    NotYetError: 22,
    PartialError: 23,
    NoRoomError: 24,
}
"""Number of the error in an ``error`` frame; 0 is an internal error of the other side."""


def lookup(table: dict[type[RealizeError], int], error: type[RealizeError]) -> int:
    """Return the value of the nearest base class of ``error`` in ``table``.

    Raises:
        KeyError: no row covers the class.
    """
    for cls in error.__mro__:
        if cls in table:
            return table[cls]
    raise KeyError(error)


def exit_code(error: RealizeError) -> int:
    """Return the exit code of a command that ends with ``error``."""
    return lookup(EXIT_CODES, type(error))


def errno_of(error: RealizeError) -> int:
    """Return the errno an application gets for ``error``."""
    if isinstance(error, PathError):
        return error.code
    return lookup(ERRNOS, type(error))


def chain(error: BaseException) -> list[str]:
    """Return the messages of ``error`` and its causes, outermost first, repeated ones dropped."""
    messages: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen) or type(seen).__name__
        if not messages or messages[-1] != text:
            messages.append(text)
        seen = seen.__cause__
    return messages
