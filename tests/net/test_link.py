"""Two links with real files between them, in memory and over real TLS."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from blake3 import blake3

from core.announce import Batch, Group, Phase
from core.byteranges import ByteRanges
from core.errors import (
    WIRE_CODES,
    ChangedError,
    DisconnectedError,
    LocalProtocolError,
    PathInvalidError,
    PathNotFoundError,
    RemoteError,
)
from core.types import Hash, Priority, RelPath, Vector, block_bytes_for
from net import columns, messages
from net.identity import Identity
from net.link import READ_WINDOW, Link
from tests.net.fakes import MemoryHousehold
from tests.net.links import Pair, Side, linked, tls_pair

pytestmark = pytest.mark.trio
V = Vector(b"aaaaaaaa" + bytes(7) + b"\1")


@pytest.fixture(params=["memory", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def pair_of(transport: str, identities: dict[str, Identity], a: Side, b: Side) -> AsyncIterator[Pair]:
    streams = await tls_pair(identities["a"], identities["b"]) if transport == "tls" else None
    async with linked(a, b, streams, identities) as pair:
        yield pair


async def read_all(
    link: Link, content: Hash, ranges: ByteRanges, priority: Priority = Priority.BATCH
) -> list[tuple[int, bytes]]:
    async with link.read("docs", content, ranges, priority) as pieces:
        return [(offset, bytes(data)) async for offset, data in pieces]


async def read_and(link: Link, content: Hash, size: int, then: Callable[[], None]) -> None:
    """Read a content and do something after its first piece."""
    async with link.read("docs", content, ByteRanges.whole(size), Priority.BATCH) as pieces:
        async for offset, _ in pieces:
            if offset == 0:
                then()


def assert_ranges(pieces: list[tuple[int, bytes]], data: bytes, ranges: ByteRanges) -> None:
    assert all(piece == data[offset : offset + len(piece)] for offset, piece in pieces)
    assert [offset for offset, _ in pieces] == sorted(offset for offset, _ in pieces)
    assert ByteRanges((offset, offset + len(piece)) for offset, piece in pieces) == ranges
    assert sum(len(piece) for _, piece in pieces) == ranges.total()
    assert max(len(piece) for _, piece in pieces) <= 256 * 1024


async def test_reads_give_the_ranges_asked_in_order(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    data = os.urandom(20_000_003)
    content = b.content.add("docs", tmp_path / "big", data)
    rng = random.Random(3)
    cuts = sorted(rng.sample(range(len(data)), 4000))
    async with pair_of(transport, identities, a, b) as pair:
        for ranges in (
            ByteRanges.whole(len(data)),
            ByteRanges([(0, 1)]),
            ByteRanges([(5, 300_000), (300_001, 300_002), (19_999_999, 20_000_003)]),
            ByteRanges(zip(cuts[::2], cuts[1::2], strict=True)),
        ):
            for priority in Priority:
                assert_ranges(await read_all(pair.a, content, ranges, priority), data, ranges)
        assert await read_all(pair.a, content, ByteRanges()) == []
    assert all(opened.closed for opened in b.content.opened)


async def test_reads_that_cannot_be_served_fail_and_leave_the_link(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "small", b"0123456789")
    async with pair_of(transport, identities, a, b) as pair:
        with pytest.raises(RemoteError, match="b: this version is not held") as caught:
            await read_all(pair.a, Hash(bytes(32)), ByteRanges([(0, 1)]))
        assert caught.value.code == WIRE_CODES[ChangedError]
        assert caught.value.peer == "b"
        with pytest.raises(RemoteError, match="beyond the end") as caught:
            await read_all(pair.a, content, ByteRanges([(9, 11)]))
        assert caught.value.code == WIRE_CODES[PathInvalidError]
        assert await read_all(pair.a, content, ByteRanges([(9, 10)])) == [(9, b"9")]


async def test_a_file_that_shrinks_or_changes_while_it_is_read_is_changed(
    identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    size = READ_WINDOW * 3
    content = b.content.add("docs", tmp_path / "big", bytes(size))
    async with pair_of("memory", identities, a, b) as pair:
        with pytest.raises(RemoteError) as caught:
            await read_and(pair.a, content, size, lambda: os.truncate(tmp_path / "big", 10))
        assert caught.value.code == WIRE_CODES[ChangedError]
    assert all(opened.closed for opened in b.content.opened)


async def test_versions_without_hash_are_read_by_path(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    data = os.urandom(1_500_000)
    (tmp_path / "new").write_bytes(data)
    path = RelPath(b"dir/new\xff")
    b.content.versions["docs", path, V] = tmp_path / "new"
    async with pair_of(transport, identities, a, b) as pair:
        assert await pair.a.read_version("docs", path, V, 0, 1024 * 1024) == data[: 1024 * 1024]
        assert await pair.a.read_version("docs", path, V, 1_499_990, 1000) == data[-10:]
        assert await pair.a.read_version("docs", path, V, 2_000_000, 1) == b""
        with pytest.raises(RemoteError) as caught:
            await pair.a.read_version("docs", path, Vector(V[:-1] + b"\2"), 0, 1)
        assert caught.value.code == WIRE_CODES[ChangedError]
        with pytest.raises(LocalProtocolError):
            await pair.a.read_version("docs", path, V, 0, 1024 * 1024 + 1)


async def test_many_small_contents_come_whole_once_each(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    rng = random.Random(4)
    sizes = [0, 1, 1024 * 1024, 300_000, *(rng.randrange(20_000) for _ in range(400))]
    data = [rng.randbytes(size) for size in sizes]
    contents = [b.content.add("docs", tmp_path / str(i), d) for i, d in enumerate(data)]
    contents[7] = Hash(bytes(32))
    (tmp_path / "8").write_bytes(b"grown since: " + data[8])
    async with pair_of(transport, identities, a, b) as pair:
        found: dict[int, bytes | None] = {}
        async with pair.a.read_many("docs", contents, sizes) as batches:
            async for batch in batches:
                for index, payload in batch:
                    assert index not in found
                    found[index] = None if payload is None else bytes(payload)
    assert found == {i: None if i in (7, 8) else d for i, d in enumerate(data)}


async def test_more_contents_than_one_request_takes(identities: dict[str, Identity], tmp_path: Path) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "one", b"x")
    count = messages.MAX_CONTENTS + 5
    async with pair_of("memory", identities, a, b) as pair:
        async with pair.a.read_many("docs", [content] * count, [1] * count) as batches:
            indexes = [index for batch in [b async for b in batches] for index, _ in batch]
        assert indexes == list(range(count))
        assert await pair.a.have("docs", [content] * count) == [True] * count


async def test_blocks_and_have(transport: str, identities: dict[str, Identity], tmp_path: Path) -> None:
    a, b = Side("a"), Side("b")
    data = os.urandom(1_000_000)
    content = b.content.add("docs", tmp_path / "file", data)
    step = block_bytes_for(len(data))
    expected = [blake3(data[at : at + step]).digest() for at in range(0, len(data), step)]
    async with pair_of(transport, identities, a, b) as pair:
        blocks = await pair.a.blocks("docs", content, 2, 3)
        assert (blocks.block_bytes, blocks.hashes) == (step, b"".join(expected[2:5]))
        with pytest.raises(RemoteError, match="block list"):
            await pair.a.blocks("docs", content, len(expected), 1)
        assert await pair.a.have("docs", [content, Hash(bytes(32))]) == [True, False]


async def test_leases(transport: str, identities: dict[str, Identity], tmp_path: Path) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "file", b"x")
    paths = [RelPath(b"%04d/" % number + b"n" * 200) for number in range(3000)]  # more than one request
    async with pair_of(transport, identities, a, b) as pair:
        b.content.lent = {(identities["a"].key, path, content) for path in paths[::3]}
        granted = await pair.a.lease("docs", paths, [content] * len(paths))
        assert granted == [number % 3 == 0 for number in range(3000)]


def announcement(seq: int, count: int, phase: Phase = Phase.FOLLOW) -> Batch:
    group = Group(
        RelPath(b"dir"),
        [b"n%d" % i for i in range(count)],
        [1] * count,
        [1] * count,
        list(range(count)),
        [0] * count,
        [0o644] * count,
        [b""] * count,
        [V] * count,
    )
    return Batch(b"u" * 16, seq, phase, [group])


async def test_subscriptions_and_acknowledgements(transport: str, identities: dict[str, Identity]) -> None:
    a, b = Side("a"), Side("b")
    b.household.batches["docs"] = [
        announcement(3, 5, Phase.CATCHUP_START),
        announcement(9, 12_000, Phase.CATCHUP_COMPLETE),
        announcement(10, 1),
    ]
    async with pair_of(transport, identities, a, b) as pair:
        async with pair.a.subscribe("docs", b"u" * 16, 2) as batches:
            got: list[Batch] = []
            async for batch in batches:
                got.append(batch)
                if batch.seq == 10:
                    break
            await pair.a.acknowledge("docs", b"u" * 16, 10)
            while not b.household.acknowledgements:
                await b.household.changed.wait()
        while b.household.subscribers:
            await b.household.changed.wait()
    expected = [
        part
        for whole, before in zip(b.household.batches["docs"], (2, 3, 9), strict=True)
        for part in columns.split(whole, before)
    ]
    assert got == expected
    assert b.household.acknowledgements == [(identities["a"].key, "docs", b"u" * 16, 10)]


async def test_arenas_a_peer_may_not_see_are_not_found_whether_they_exist_or_not(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b", arenas=frozenset({"music"}))
    content = b.content.add("docs", tmp_path / "secret", b"secret")
    b.content.versions["docs", RelPath(b"x"), V] = tmp_path / "secret"
    b.household.batches["docs"] = [announcement(3, 5)]
    texts = set()
    async with pair_of(transport, identities, a, b) as pair:
        assert pair.a.arenas == pair.b.arenas == {"music"}
        for arena in ("docs", "nowhere"):
            some = ByteRanges([(0, 1)])
            calls: list[Callable[[], Awaitable[object]]] = [
                partial(pair.a.have, arena, [content]),
                partial(pair.a.lease, arena, [RelPath(b"x")], [content]),
                partial(pair.a.blocks, arena, content, 0, 1),
                partial(pair.a.read_version, arena, RelPath(b"x"), V, 0, 1),
                partial(_first, pair.a.read(arena, content, some, Priority.BATCH)),
                partial(_first, pair.a.read_many(arena, [content], [6])),
                partial(_first, pair.a.subscribe(arena, b"", 0)),
            ]
            for call in calls:
                with pytest.raises(RemoteError) as caught:
                    await call()
                assert caught.value.code == WIRE_CODES[PathNotFoundError]
                texts.add(str(caught.value))
        await pair.a.acknowledge("docs", b"u" * 16, 1)
        assert await pair.a.have("music", [content]) == [False]
    assert len(texts) == 1
    assert b.household.acknowledgements == []


async def _first(context: object) -> object:
    async with context as items:  # type: ignore[attr-defined]  # contexts of three kinds of answers
        return await anext(items)


async def test_leaving_a_read_cancels_it_on_the_other_side(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    size = READ_WINDOW * 4
    content = b.content.add("docs", tmp_path / "big", bytes(size))
    async with pair_of(transport, identities, a, b) as pair:
        async with pair.a.read("docs", content, ByteRanges.whole(size), Priority.BATCH) as pieces:
            await anext(pieces)
        assert await pair.a.have("docs", [content]) == [True]
        while not all(opened.closed for opened in b.content.opened):
            await trio.testing.wait_all_tasks_blocked()
        assert pair.a.stats().rx_bytes < READ_WINDOW * 2


async def test_a_slow_reader_stops_nobody(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    data = os.urandom(READ_WINDOW * 2)
    content = b.content.add("docs", tmp_path / "big", data)
    whole = ByteRanges.whole(len(data))
    async with (
        pair_of(transport, identities, a, b) as pair,
        pair.a.read("docs", content, whole, Priority.BATCH) as slow,
    ):
        taken = [bytes((await anext(slow))[1])]
        for priority in Priority:
            assert_ranges(await read_all(pair.a, content, whole, priority), data, whole)
        # The slow one holds its window and an overdraft, never the whole file.
        assert pair.a.stats().rx_bytes < 2 * len(data) + READ_WINDOW + 2_000_000
        taken += [bytes(piece) async for _, piece in slow]
        assert b"".join(taken) == data


class GatedStream(trio.abc.Stream):
    """A stream on which sending waits while the gate is shut."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self.gate = trio.Event()
        self.gate.set()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self.gate.wait()
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_interactive_reads_overtake_batch_reads_that_wait_to_be_sent(
    identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "big", bytes(4_000_000))
    left, right = trio.testing.memory_stream_pair()
    gated = GatedStream(right)
    order: list[str] = []

    async def read(link: Link, size: int, priority: Priority) -> None:
        async with link.read("docs", content, ByteRanges.whole(size), priority) as pieces:
            async for _ in pieces:
                order.append(priority.name)

    async with linked(a, b, (left, gated), identities) as pair, trio.open_nursery() as nursery:
        gated.gate = trio.Event()
        nursery.start_soon(read, pair.a, 4_000_000, Priority.BATCH)
        while pair.b.connection._outbox.waiting_bytes(Priority.BATCH) < 500_000:
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, pair.a, 1000, Priority.INTERACTIVE)
        while not pair.b.connection._outbox.waiting_bytes(Priority.INTERACTIVE):
            await trio.testing.wait_all_tasks_blocked()
        gated.gate.set()
    # One piece was in the stream's hands; those in the queue were overtaken.
    assert order.index("INTERACTIVE") <= 1
    assert order.count("BATCH") == 16


async def test_a_link_that_ends_fails_what_is_asked_and_what_will_be(
    transport: str, identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    size = READ_WINDOW * 4
    content = b.content.add("docs", tmp_path / "big", bytes(size))
    async with pair_of(transport, identities, a, b) as pair:
        enough = DisconnectedError("enough")
        with pytest.raises(DisconnectedError):
            await read_and(pair.a, content, size, lambda: pair.b.connection.close(enough, goodbye="enough"))
        await pair.ended.wait()
        with pytest.raises(DisconnectedError, match="no connection to b") as caught:
            await pair.a.have("docs", [content])
        assert "enough" in str(caught.value.__cause__)
        with pytest.raises(DisconnectedError):
            await pair.a.acknowledge("docs", b"u" * 16, 1)
        assert "enough" in str(pair.ends["a"])
    assert all(opened.closed for opened in b.content.opened)


async def test_a_bug_in_a_service_fails_one_request(
    identities: dict[str, Identity], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(MemoryHousehold):
        async def announcements(self, peer: bytes, arena: str, uuid: bytes, seq: int) -> AsyncIterator[Batch]:
            raise ZeroDivisionError
            yield

    a, b = Side("a"), Side("b", household=Broken())
    content = b.content.add("docs", tmp_path / "x", b"x")
    async with pair_of("memory", identities, a, b) as pair:
        with pytest.raises(RemoteError, match="internal error") as caught:
            await _first(pair.a.subscribe("docs", b"", 0))
        assert caught.value.code == 0
        assert await pair.a.have("docs", [content]) == [True]
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_statistics(identities: dict[str, Identity], tmp_path: Path) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "x", bytes(1_000_000))
    async with pair_of("tls", identities, a, b) as pair:
        await read_all(pair.a, content, ByteRanges.whole(1_000_000))
        stats = pair.a.stats()
        assert 1_000_000 < stats.rx_bytes < 1_100_000
        assert stats.rx_rate > 0
        assert stats.rtt_s is not None
        assert 0 < stats.rtt_s < 5
        assert stats.clock_skew_s is not None
        assert abs(stats.clock_skew_s) < 5
        assert pair.b.stats().tx_bytes > 1_000_000


async def test_more_requests_than_fit_wait_for_their_turn(
    identities: dict[str, Identity], tmp_path: Path
) -> None:
    a, b = Side("a"), Side("b")
    content = b.content.add("docs", tmp_path / "x", b"x")
    done = 0

    async def ask(link: Link) -> None:
        nonlocal done
        assert await link.have("docs", [content]) == [True]
        done += 1

    async with pair_of("memory", identities, a, b) as pair, trio.open_nursery() as nursery:
        for _ in range(messages.REQUESTS_IN_FLIGHT * 2):
            nursery.start_soon(ask, pair.a)
    assert done == messages.REQUESTS_IN_FLIGHT * 2
