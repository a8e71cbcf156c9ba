"""The machine that a simulated household runs on: one clock, one order of events, deaths at any step.

Inside ``with World(seed)`` everything that could differ between two runs comes from the seed: time is a mock
clock that jumps to the next thing to do, workers run inline with random pauses around them, trio's order of
tasks, random numbers and identifiers are seeded. INVARIANT: the same seed and code give the same run, if
``PYTHONHASHSEED`` is the same (`tests.sim.run` sees to it).

A `Process` is one life of one host. What runs for it finds it in `current`; each of its commits and system
calls that change a disk is a *step* at which it can die: that call is never made, nor is any later one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import trio
from trio import _core as trio_core
from trio.testing import MockClock

import core.blobdisk
import core.disk
import core.hashing
import core.placing

_EPOCH_NS = 2_000_000_000_000_000_000
"""When simulated time begins: later than the stamps of the kernel, which come from the real clock."""

_CHANGING = (
    "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "symlink", "link", "utime", "chmod", "fchmod",
    "write", "pwrite", "ftruncate", "setxattr", "removexattr", "copy_file_range",
)  # fmt: skip
"""Functions of `os` that change a disk."""


class KilledError(BaseException):
    """The process of a host died at one of its steps. Not an Exception: nothing may handle it."""


class Process:
    """One life of a host."""

    def __init__(self, name: str, clock_ns: int = 0) -> None:
        """Begin a life of host ``name``, whose clock is ``clock_ns`` wrong."""
        self.name = name
        self.clock_ns = clock_ns
        self.killed = False
        self.scope = trio.CancelScope()
        self.fds: set[int] = set()
        self.buried = False
        """Whether it has ended and its files are closed."""
        self._left: int | None = None

    def die_after(self, steps: int | None) -> None:
        """Die when as many more steps have been taken; None: not any more."""
        self._left = steps

    def kill(self) -> None:
        """Die now."""
        self.killed = True
        self.scope.cancel()

    def step(self) -> None:
        """Take a step.

        Raises:
            KilledError: it is the last one, and not taken.
        """
        if self.killed:
            raise KilledError
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self.kill()
                raise KilledError

    def close_files(self) -> None:
        """Close what a dead process had open."""
        for fd in self.fds:
            with contextlib.suppress(OSError):
                _REAL_CLOSE(fd)
        self.fds.clear()
        self.buried = True


current: ContextVar[Process | None] = ContextVar("current", default=None)
_REAL_CLOSE = os.close


@contextlib.contextmanager
def acting(process: Process | None) -> Iterator[None]:
    """Do something in the place of a process."""
    token = current.set(process)
    try:
        yield
    finally:
        current.reset(token)


@contextlib.contextmanager
def dying() -> Iterator[None]:
    """Let a death end a task quietly."""
    try:
        yield
    except* KilledError:
        pass


def _clock() -> MockClock:
    """Return a clock that jumps a little beyond the next deadline.

    Else code that computes the time that is left would, for rounding, wait again for nothing: for ever, since
    the time it takes does not pass here.
    """
    clock = MockClock(autojump_threshold=0)
    exactly = clock.jump
    clock.jump = lambda seconds: exactly(seconds + 1e-6)  # type: ignore[method-assign]
    return clock


class World:
    """A context in which a simulation runs, made from a seed."""

    def __init__(self, seed: int, *, late: float = 0.01) -> None:
        """Make the world of ``seed``; nothing is changed before it is entered.

        ``late`` is the share of pauses that are longer than any debounce.
        """
        self._late = late
        self.rng = random.Random(f"world {seed}")
        self.clock = _clock()
        self.on_unlink: Callable[[Any, int | None], None] | None = None
        """Told of each name that a process is about to remove, with the directory's descriptor."""
        self._undo = contextlib.ExitStack()
        self._stamp_ns = 0

    def __enter__(self) -> World:
        """Take over time, chance, workers and the calls that change disks."""
        run = trio_core._run
        self._set(run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        self._set(run, "_r", random.Random(self.rng.random()))
        self._undo.callback(random.setstate, random.getstate())
        random.seed(self.rng.random())
        self._set(secrets, "token_bytes", self.rng.randbytes)
        self._set(time, "time_ns", self.now_ns)
        self._set(time, "time", lambda: self.now_ns() / 1e9)
        self._set(time, "monotonic", self.clock.current_time)
        self._set(core.hashing.hash_batch, "__defaults__", (self.now_ns,))
        self._set(trio.to_thread, "run_sync", self._run_inline)
        self._set(trio.from_thread, "check_cancelled", lambda: None)
        for name in _CHANGING:
            self._set(os, name, _stepping(getattr(os, name)))
        self._set(os, "unlink", self._removing(os.unlink))
        self._set(os, "open", _opening(os.open))
        self._set(os, "dup", _tracked(os.dup))
        self._set(os, "close", _closing)
        self._set(core.placing, "_renameat2", _stepping(core.placing._renameat2))
        self._set(core.disk, "_syscall", _tracked(_refusing(core.disk._syscall, _flags_of_openat2)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give everything back."""
        self._undo.close()

    def _set(self, owner: object, name: str, value: object) -> None:
        self._undo.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    def _removing(self, real: Callable[..., None]) -> Callable[..., None]:
        def unlink(path: Any, *, dir_fd: int | None = None) -> None:  # noqa: ANN401 - as os.unlink
            if self.on_unlink is not None and current.get() is not None:
                self.on_unlink(path, dir_fd)
            real(path, dir_fd=dir_fd)

        return unlink

    # -- time

    def now_ns(self) -> int:
        """Return the wall clock of the process that asks."""
        process = current.get()
        offset = process.clock_ns if process is not None else 0
        return _EPOCH_NS + int(self.clock.current_time() * 1e9) + offset

    def stamp_ns(self) -> int:
        """Return the time of a change by a user; no two are equal."""
        self._stamp_ns = max(self._stamp_ns + 1, self.now_ns())
        return self._stamp_ns

    # -- workers

    async def _run_inline(
        self,
        fn: Callable[..., Any],
        *args: Any,  # noqa: ANN401 - as trio.to_thread.run_sync
        thread_name: str | None = None,
        abandon_on_cancel: bool = False,
        limiter: trio.CapacityLimiter | None = None,
    ) -> Any:  # noqa: ANN401 - as trio.to_thread.run_sync
        """Stand in for `trio.to_thread.run_sync`: the call takes some time, in which others run."""
        await trio.lowlevel.checkpoint_if_cancelled()
        who = object()
        if limiter is not None:
            await limiter.acquire_on_behalf_of(who)
        try:
            with trio.CancelScope(shield=True):
                await self._pause()
                process = current.get()
                if process is not None and process.killed:
                    raise KilledError
                try:
                    return fn(*args)
                finally:
                    await self._pause()
        finally:
            if limiter is not None:
                limiter.release_on_behalf_of(who)

    async def _pause(self) -> None:
        chance = self.rng.random()
        if chance < self._late:
            await trio.sleep(0.5)
        elif chance < 0.8:
            await trio.lowlevel.checkpoint()
        else:
            await trio.sleep(0.01 * chance)


def _stepping(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the real one
        process = current.get()
        if process is not None:
            process.step()
        return real(*args, **kwargs)

    return call


def _tracked(real: Callable[..., Any]) -> Callable[..., Any]:
    """Note the descriptor that a call returns."""

    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the real one
        fd = real(*args, **kwargs)
        process = current.get()
        if process is not None and fd >= 0:
            process.fds.add(fd)
        return fd

    return call


def _refusing(real: Callable[..., int], flags_of: Callable[..., int]) -> Callable[..., int]:
    """Refuse a process what nobody may read: the simulation may run as root, who may."""

    def call(*args: Any, **kwargs: Any) -> int:  # noqa: ANN401 - as the real one
        fd = real(*args, **kwargs)
        flags = flags_of(*args)
        reads = not flags & os.O_PATH and flags & os.O_ACCMODE != os.O_WRONLY
        if fd >= 0 and reads and current.get() is not None and not os.fstat(fd).st_mode & 0o400:
            _REAL_CLOSE(fd)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return fd

    return call


def _flags_of_openat2(number: int, root_fd: int, path: bytes, how: bytes, size: int) -> int:
    return int(core.disk._HOW.unpack(how)[0])


def _opening(real: Callable[..., int]) -> Callable[..., int]:
    plain = _tracked(_refusing(real, lambda _, flags, *__: int(flags)))
    creating = _tracked(_stepping(real))

    def call(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:  # noqa: ANN401
        how = creating if flags & os.O_CREAT else plain
        return how(path, flags, mode, dir_fd=dir_fd)  # type: ignore[no-any-return]  # a descriptor

    return call


def _closing(fd: int) -> None:
    process = current.get()
    if process is not None:
        # RACE: a task that had not ended when its process died closes what was closed with the process: the
        # number may be another file's by now, a database of another host even.
        if process.buried and fd not in process.fds:
            return
        process.fds.discard(fd)
    _REAL_CLOSE(fd)
