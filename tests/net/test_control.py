"""The control socket, with a whole `Api` behind it and a client in front."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio

from core.api import Api, ArenaPath, Entry, GetProgress, MarkChange, Page
from core.errors import (
    WIRE_CODES,
    ConfigError,
    NoDaemonError,
    PathNotFoundError,
    RealizeError,
    RemoteError,
    StoreError,
    UsageError,
    chain,
)
from core.events import AnyEvent, ChurtenChanged, FileChanged, Reset
from core.types import Hash, Mark
from net import codec, messages, unix_socket
from net.control import ControlClient, ControlServer
from net.frames import encode_prefix
from net.messages import Hello
from tests.fakes.api import FakeApi
from tests.fakes.household import sample

pytestmark = pytest.mark.trio
CLASSES: list[type[RealizeError]] = list(WIRE_CODES)
PATHS = [ArenaPath("docs", b"a\xff"), ArenaPath("docs")]
EVENTS: list[list[AnyEvent]] = [
    [ChurtenChanged(running=True), FileChanged(arena="docs", path=b"\xff", what="added")],
    [Reset(at_ns=5)],
]


class Streaming(FakeApi):
    """Streams that can be seen to end, and a very long answer."""

    def __init__(self) -> None:
        super().__init__("streaming", 0)
        self.ended = trio.Event()
        self.entries = 0

    async def get(self, paths: Sequence[ArenaPath]) -> AsyncIterator[GetProgress]:
        for at in paths:
            yield GetProgress(at, 1, 2, done=False)
        raise PathNotFoundError("no such file", hint="look elsewhere")

    async def events(self) -> AsyncIterator[list[AnyEvent]]:
        try:
            for batch in EVENTS:
                yield batch
            await trio.sleep_forever()
        finally:
            self.ended.set()

    async def listdir(self, at: ArenaPath, *, after: bytes = b"", limit: int = 1000) -> Page:
        entry = await sample().lookup(ArenaPath("docs"))
        return Page(tuple(msgspec.structs.replace(entry, path=b"x" * 250) for _ in range(limit)), more=True)


@asynccontextmanager
async def served(api: Api, path: Path) -> AsyncIterator[Api]:
    async with trio.open_nursery() as nursery:
        await nursery.start(ControlServer(api, path).run)
        async with ControlClient(path) as client:
            yield client
        nursery.cancel_scope.cancel()


async def test_answers_are_those_of_the_api(tmp_path: Path) -> None:
    direct = sample()
    root = ArenaPath("docs")
    async with served(sample(), tmp_path / "control.sock") as client:
        for api in (client,):
            assert await api.status() == await direct.status()
            assert await api.arenas() == await direct.arenas()
            assert await api.peers() == await direct.peers()
            assert await api.jobs(limit=3) == await direct.jobs(limit=3)
            assert await api.usage(root) == await direct.usage(root)
            assert await api.mark_list() == await direct.mark_list()
            assert await api.mark_list("docs") == await direct.mark_list("docs")
            page = await api.listdir(root, limit=2)
            assert page == await direct.listdir(root, limit=2)
            file: Entry = page.entries[-1]
            at = ArenaPath("docs", file.path)
            assert await api.lookup(at) == await direct.lookup(at)
            assert await api.why(at) == await direct.why(at)
            changes = [MarkChange(at, Mark.OWN), MarkChange(root, None)]
            assert await api.mark_effect(changes) == await direct.mark_effect(changes)
            assert await api.mark_apply(changes) == await direct.mark_apply(changes)
            assert await api.mark_get(at) == await direct.mark_get(at)
            assert await api.churten_stop() is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
async def test_errors_keep_class_message_causes_and_hint(tmp_path: Path, cls: type[RealizeError]) -> None:
    api = sample()
    text = "it failed: \udcff"
    error = cls([text], hint="do this") if issubclass(cls, ConfigError) else cls(text, hint="do this")
    error.__cause__ = OSError("because")
    api.failing["status"] = error
    async with served(api, tmp_path / "control.sock") as client:
        with pytest.raises(cls) as caught:
            await client.status()
        assert type(caught.value) is cls
        assert chain(caught.value) == ["it failed: \\udcff", "because"]
        assert caught.value.hint == "do this"
        assert (await client.jobs()).running


async def test_a_bug_in_the_daemon_is_an_internal_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    api = sample()
    api.failing["status"] = ZeroDivisionError()
    async with served(api, tmp_path / "control.sock") as client:
        with pytest.raises(RemoteError, match="internal error"):
            await client.status()
    assert "Control of control client failed" in caplog.text


async def test_streams_give_their_values_and_then_their_error(tmp_path: Path) -> None:
    async with served(Streaming(), tmp_path / "control.sock") as client:
        got: list[GetProgress] = []
        with pytest.raises(PathNotFoundError, match="no such file") as caught:
            await _collect(client.get(PATHS), got)
        assert [progress.at for progress in got] == PATHS
        assert caught.value.hint == "look elsewhere"


async def _collect(values: AsyncIterator[GetProgress], into: list[GetProgress]) -> None:
    async for value in values:
        into.append(value)


async def test_leaving_a_stream_ends_it_in_the_daemon(tmp_path: Path) -> None:
    api = Streaming()
    async with served(api, tmp_path / "control.sock") as client:
        events = cast("AsyncGenerator[list[AnyEvent], None]", client.events())
        async with aclosing(events):
            assert [await anext(events), await anext(events)] == EVENTS
        with trio.fail_after(5):
            await api.ended.wait()


async def test_cancelling_a_call_cancels_the_method(tmp_path: Path) -> None:
    api = sample()
    api.held_up["status"] = trio.Event()
    async with served(api, tmp_path / "control.sock") as client:
        with trio.move_on_after(0.05) as scope:
            await client.status()
        assert scope.cancelled_caught
        assert (await client.jobs()).running


async def test_answers_longer_than_a_frame_come_whole(tmp_path: Path) -> None:
    async with served(Streaming(), tmp_path / "control.sock") as client:
        page = await client.listdir(ArenaPath("docs"), limit=20_000)
        assert len(page.entries) == 20_000


async def test_many_calls_at_once(tmp_path: Path) -> None:
    done = 0

    async def call(client: Api) -> None:
        nonlocal done
        assert (await client.usage(ArenaPath("docs"))).files > 0
        done += 1

    async with served(sample(), tmp_path / "control.sock") as client, trio.open_nursery() as nursery:
        for _ in range(600):
            nursery.start_soon(call, client)
    assert done == 600


async def test_the_socket_is_only_for_its_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "made" / "run" / "control.sock"
    async with served(sample(), path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
        monkeypatch.setattr(unix_socket, "_CREDENTIALS", _Credentials())
        with pytest.raises(NoDaemonError, match="does not speak"):
            async with ControlClient(path):
                pass
    assert not path.exists()


class _Credentials:
    size = 12

    def unpack(self, raw: bytes) -> tuple[int, int, int]:
        return 1, os.getuid() + 1, 1


async def test_without_a_daemon_it_is_said_how_to_start_one(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    for make in (lambda path: None, _leave_stale):
        make(path)
        with pytest.raises(NoDaemonError, match="no daemon answers") as caught:
            async with ControlClient(path):
                pass
        assert "realize tui" in caught.value.hint
    with pytest.raises(NoDaemonError):
        async with ControlClient(tmp_path / "no" / "such" / "dir"):
            pass


def _leave_stale(path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))


async def test_a_stale_socket_is_replaced_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    _leave_stale(path)
    async with served(sample(), path) as client:
        with pytest.raises(StoreError, match="another daemon answers"):
            await ControlServer(sample(), path).run()
        assert (await client.jobs()).running
    path.write_text("precious")
    with pytest.raises(StoreError, match="not a socket"):
        await ControlServer(sample(), path).run()
    assert path.read_text() == "precious"


async def test_paths_longer_than_a_socket_address(tmp_path: Path) -> None:
    async with served(sample(), tmp_path / ("d" * 100) / ("e" * 100) / "control.sock") as client:
        assert (await client.jobs()).running


async def test_a_daemon_that_goes_away_is_no_daemon(tmp_path: Path) -> None:
    api = sample()
    api.held_up["status"] = trio.Event()
    path = tmp_path / "control.sock"
    caught: list[NoDaemonError] = []

    async def ask() -> None:
        async with ControlClient(path) as client:
            try:
                await client.status()
            except NoDaemonError as error:
                caught.append(error)

    async with trio.open_nursery() as clients, trio.open_nursery() as daemon:
        await daemon.start(ControlServer(api, path).run)
        clients.start_soon(ask)
        while not api.calls["status"]:
            await trio.testing.wait_all_tasks_blocked(0.001)
        daemon.cancel_scope.cancel()
    assert [str(error) for error in caught] == ["the daemon went away"]
    assert not path.exists()


async def test_what_is_no_control_request_is_refused_and_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with served(sample(), path) as client:
        assert isinstance(client, ControlClient)
        connection = client._connection
        assert connection is not None
        for request in (messages.Control("no_such_method"), messages.Have("docs", [Hash(bytes(32))])):
            with pytest.raises(UsageError):
                async with connection.ask(request, b"") as incoming:
                    await incoming.take()
            assert (await client.jobs()).running


async def test_garbage_on_the_socket_closes_that_client_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "control.sock"
    async with served(sample(), path) as client:
        stream = await unix_socket.connect_unix(path)
        hello = codec.encode(0, Hello("x", frozenset(), 0))
        await stream.send_all(encode_prefix(hello, 0) + b"\xff" * 100)
        while await stream.receive_some():
            pass
        assert "broke the protocol" in caplog.text
        assert (await client.jobs()).running
