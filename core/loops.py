"""The only place where work crosses from one loop to another (spec 2 §Threads).

`TrioThread` runs a trio loop in a thread of its own. Others reach it by `submit` (any thread, asyncio
through ``asyncio.wrap_future``), `call` (another trio loop) and `post` (fire and forget).

Invariants: a posted callback cannot end the loop; cancelling a caller cancels its work; when the
loop ends every pending call fails with `EngineStoppedError`.
"""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from core.errors import EngineStoppedError

_log = logging.getLogger("realize.core.loops")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class TrioThread:
    """A trio loop in a thread. ``main`` gets this object and calls `open` when it can serve."""

    def __init__(self, name: str) -> None:
        """Make the object; nothing runs before `start`."""
        self._name = name
        self._lock = threading.Lock()
        self._pending: set[concurrent.futures.Future[object]] = set()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._main_scope: trio.CancelScope | None = None
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self.ended = threading.Event()
        self.failure: BaseException | None = None

    def start(self, main: Callable[[], Awaitable[None]]) -> None:
        """Run ``main`` in a new thread; returns once the loop accepts work or has ended."""
        self._thread = threading.Thread(target=self._run, args=(main,), name=self._name, daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self, main: Callable[[], Awaitable[None]]) -> None:
        try:
            trio.run(self._serve, main)
        except BaseException as error:  # noqa: BLE001 - kept for the supervisor that joins the thread
            self.failure = error
            _log.exception("loop %s ended by an error", self._name)
        finally:
            with self._lock:
                self._token = None
                pending = list(self._pending)
                self._pending.clear()
            for future in pending:
                _settle(future, error=EngineStoppedError(f"the {self._name} has stopped"))
            self.ended.set()
            self._ready.set()

    async def _serve(self, main: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with self._lock:
                self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            with trio.CancelScope() as self._main_scope:
                await main()
            nursery.cancel_scope.cancel()

    def stop(self) -> None:
        """Cancel the loop's main function; any thread. Returns at once."""
        self.post(self._cancel_main)

    def _cancel_main(self) -> None:
        if self._main_scope is not None:
            self._main_scope.cancel()

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread to end; says whether it has."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self.ended.is_set()

    def submit(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> concurrent.futures.Future[T]:
        """Run ``fn(*args)`` in the loop; any thread, never blocks. Cancelling the future cancels it."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        with self._lock:
            token = self._token
            if token is not None:
                self._pending.add(future)  # type: ignore[arg-type]  # a set of futures of any result
        if token is None:
            future.set_exception(EngineStoppedError(f"the {self._name} is not running"))
            return future
        try:
            token.run_sync_soon(self._spawn, future, fn, args)
        except trio.RunFinishedError:
            _settle(future, error=EngineStoppedError(f"the {self._name} has stopped"))
        return future

    def _spawn(
        self, future: concurrent.futures.Future[T], fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]
    ) -> None:
        # RACE: the nursery may have closed between submit and this callback; then the call fails.
        try:
            if self._nursery is None:
                raise RuntimeError("no nursery")  # noqa: TRY301 - one handler for both causes
            self._nursery.start_soon(self._call, future, fn, args)
        except RuntimeError:
            _settle(future, error=EngineStoppedError(f"the {self._name} has stopped"))

    async def _call(
        self, future: concurrent.futures.Future[T], fn: Callable[[*Ts], Awaitable[T]], args: tuple[*Ts]
    ) -> None:
        token = trio.lowlevel.current_trio_token()
        try:
            with trio.CancelScope() as scope:

                def on_done(done: concurrent.futures.Future[T]) -> None:
                    if done.cancelled():
                        try:
                            token.run_sync_soon(scope.cancel)
                        except trio.RunFinishedError:
                            _log.debug("loop %s ended before a cancelled call", self._name)

                future.add_done_callback(on_done)
                if future.cancelled():
                    return
                try:
                    result = await fn(*args)
                except trio.Cancelled:
                    _settle(future, error=EngineStoppedError(f"the {self._name} is stopping"))
                    raise
                except Exception as error:  # noqa: BLE001 - carried over to the caller whole
                    _settle(future, error=error)
                else:
                    _settle(future, result=result)
        finally:
            with self._lock:
                self._pending.discard(future)

    async def call(self, fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run ``fn(*args)`` in the loop and wait for it, from another trio loop; cancellable."""
        here = trio.lowlevel.current_trio_token()
        done = trio.Event()
        future = self.submit(fn, *args)

        def wake(_: concurrent.futures.Future[T]) -> None:
            try:
                here.run_sync_soon(done.set)
            except trio.RunFinishedError:
                _log.debug("caller of loop %s ended first", self._name)

        future.add_done_callback(wake)
        try:
            await done.wait()
        except trio.Cancelled:
            future.cancel()
            raise
        return future.result()

    def post(self, fn: Callable[[*Ts], object], *args: *Ts) -> bool:
        """Call ``fn(*args)`` in the loop soon; any thread. Says whether the loop is there to do it."""
        with self._lock:
            token = self._token
        if token is None:
            return False
        try:
            token.run_sync_soon(_guarded, fn, args)
        except trio.RunFinishedError:
            return False
        return True


def _guarded(fn: Callable[[*Ts], object], args: tuple[*Ts]) -> None:
    try:
        fn(*args)
    except Exception:  # noqa: BLE001 - a posted callback must not end the loop
        _log.exception("posted callback failed")


def _settle(
    future: concurrent.futures.Future[T], *, result: T | None = None, error: BaseException | None = None
) -> None:
    # RACE: the caller may cancel at the same time; then nobody waits for the outcome any more.
    try:
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]
    except concurrent.futures.InvalidStateError:
        _log.debug("result of a cancelled call dropped")
