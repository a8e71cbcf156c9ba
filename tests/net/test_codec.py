"""Messages survive the wire; whatever else arrives is a RemoteProtocolError in bounded memory."""

from __future__ import annotations

import importlib.resources
import random
import tracemalloc
from dataclasses import replace
from typing import Any

import capnp
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.announce import Batch, Group, Phase
from core.byteranges import ByteRanges
from core.errors import LocalProtocolError, RemoteProtocolError
from core.types import Hash, PeerKey, RelPath, Vector
from core.versions import encode as vector_of
from net import codec, columns, messages
from net.frames import MAX_PAYLOAD
from net.messages import Body

H = Hash(b"h" * 32)
V = vector_of({PeerKey(b"aaaaaaaa"): 3, PeerKey(b"bbbbbbbb"): 1})

SAMPLES: list[Body] = [
    messages.Hello("laptop \udcff", frozenset({"docs", "bilder/ä"}), -5),
    messages.Ping(2**64 - 1),
    messages.Pong(0),
    messages.Goodbye("bye"),
    messages.Credit(1),
    messages.Cancel(),
    messages.End(),
    messages.Failure(7, "changed", ("because", "of that"), "try again"),
    messages.Subscribe("docs", b"u" * 16, 9, 100),
    messages.Subscribe("docs", b"", 0, messages.MAX_WINDOW),
    messages.Acknowledge("docs", b"u" * 16, 2**62),
    messages.Read("docs", H, ByteRanges([(0, 5), (7, 2**62)]), True, 8),
    messages.ReadVersion("docs", RelPath(b"a/\xff\n b"), V, 2**40, 1024 * 1024),
    messages.ReadMany("docs", [H, Hash(b"i" * 32)], [0, 1024 * 1024], 7),
    messages.Blocks("docs", H, 1, 8191),
    messages.Have("docs", [H]),
    messages.Lease("docs", [RelPath(b"a/\xff\n b"), RelPath(b"c")], [H, Hash(b"i" * 32)]),
    messages.Control("status"),
    messages.Announcements(),
    messages.Data(2**40),
    messages.Many(5, [3, None, 0]),
    messages.BlockHashes(128 * 1024),
    messages.Flags(),
    messages.Result(True),
]


@pytest.mark.parametrize("body", SAMPLES, ids=lambda body: type(body).__name__)
def test_messages_survive_the_wire(body: Body) -> None:
    assert codec.decode(codec.encode(77, body)) == (77, body)


def test_every_kind_of_message_has_a_sample() -> None:
    assert {type(body) for body in SAMPLES} == set(codec._ENCODERS)


BAD: list[Body] = [
    messages.Hello("n", frozenset({"../x"}), 0),
    messages.Hello("n", frozenset({"/x"}), 0),
    messages.Hello("n", frozenset({""}), 0),
    messages.Hello("n" * 300, frozenset(), 0),
    messages.Credit(0),
    messages.Credit(messages.MAX_WINDOW + 1),
    messages.Subscribe("docs", b"short", 0, 1),
    messages.Subscribe("docs", b"", 2**63, 1),
    messages.Subscribe("docs", b"", 0, 0),
    messages.Subscribe("a/../b", b"", 0, 1),
    messages.Acknowledge("docs", b"", 1),
    messages.Read("docs", Hash(b"short"), ByteRanges([(0, 1)]), False, 1),
    messages.Read("docs", H, ByteRanges(), False, 1),
    messages.Read("docs", H, ByteRanges([(0, 2**63)]), False, 1),
    messages.ReadVersion("docs", RelPath(b"a/../b"), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b"/etc/passwd"), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b"a\0b"), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b"a//b"), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b""), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b"n" * 256), V, 0, 1),
    messages.ReadVersion("docs", RelPath(b"a"), Vector(b"123"), 0, 1),
    messages.ReadVersion("docs", RelPath(b"a"), V, 2**63 - 1, 1),
    messages.ReadVersion("docs", RelPath(b"a"), V, 0, 1024 * 1024 + 1),
    messages.ReadVersion("docs", RelPath(b"a"), V, 0, 0),
    messages.ReadMany("docs", [H], [], 1),
    messages.ReadMany("docs", [], [], 1),
    messages.ReadMany("docs", [H], [1024 * 1024 + 1], 1),
    messages.Blocks("docs", H, 8192, 1),
    messages.Blocks("docs", H, 0, 0),
    messages.Have("docs", []),
    messages.Have("docs", [Hash(b"x")]),
    messages.Lease("docs", [], []),
    messages.Lease("docs", [RelPath(b"")], [H]),
    messages.Lease("docs", [RelPath(b"a/../b")], [H]),
    messages.Lease("docs", [RelPath(b"/etc/passwd")], [H]),
    messages.Lease("docs", [RelPath(b"a"), RelPath(b"b")], [H]),
    messages.Lease("docs", [RelPath(b"a")] * 1025, [H] * 1025),
    messages.Control(""),
    messages.Control("m" * 65),
    messages.Data(2**63),
    messages.Many(0, []),
    messages.BlockHashes(0),
    messages.BlockHashes(2**31),
]


@pytest.mark.parametrize("body", BAD, ids=repr)
def test_fields_out_of_bounds_are_refused_on_arrival(body: Body) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(codec.encode(1, body))


def test_ranges_must_be_in_their_one_form() -> None:
    good = codec.encode(1, messages.Read("docs", H, ByteRanges([(1, 2), (3, 4)]), False, 1))
    pair = [n.to_bytes(8, "big") for n in (1, 2, 3, 4)]
    for order in ((2, 3, 0, 1), (0, 1, 1, 3), (0, 2, 1, 3), (0, 0, 2, 3), (1, 0, 2, 3)):
        bad = good.replace(b"".join(pair), b"".join(pair[i] for i in order))
        assert bad != good
        with pytest.raises(RemoteProtocolError):
            codec.decode(bad)


@pytest.mark.parametrize("body", SAMPLES, ids=lambda body: type(body).__name__)
def test_truncated_and_damaged_messages_never_give_anything_but_a_protocol_error(body: Body) -> None:
    data = codec.encode(3, body)
    for length in range(0, len(data), 8):
        _decodes_or_is_refused(data[:length])
    rng = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(data))] = rng.choice([0, 1, 2, 127, 128, 255, rng.randrange(256)])
        _decodes_or_is_refused(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=50).map(lambda b: b * 8))
def test_random_headers_never_give_anything_but_a_protocol_error(data: bytes) -> None:
    _decodes_or_is_refused(data)


def _decodes_or_is_refused(data: bytes) -> None:
    try:
        request_id, body = codec.decode(data)
    except RemoteProtocolError:
        return
    assert isinstance(body, tuple(codec._ENCODERS))
    assert 0 <= request_id < 2**32


def test_a_small_message_cannot_claim_a_huge_list() -> None:
    # A list of zero-sized elements costs no bytes: the amplification that traversal limits are for.
    wire = capnp.load(str(importlib.resources.files("net") / "wire.capnp"))
    message = wire.Message.new_message()
    message.init("error").init("causes", 100_000)
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        codec.decode(message.to_bytes()[:1024])
    hello = wire.Message.new_message()
    hello.init("hello").init("arenas", 5000)
    with pytest.raises(RemoteProtocolError):
        codec.decode(hello.to_bytes())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_errors_are_cut_to_what_the_other_side_takes() -> None:
    failure = messages.Failure(1, "m\udc80" * 10_000, tuple("c" * 5000 for _ in range(50)), "")
    _, body = codec.decode(codec.encode(1, failure))
    assert isinstance(body, messages.Failure)
    assert len(body.message) <= 4096
    assert len(body.causes) == 16


# --- announcements ---


def group(directory: bytes, count: int, *, links: bool = False) -> Group:
    return Group(
        RelPath(directory),
        [b"name-%d\xff" % i for i in range(count)],
        [i % 4 for i in range(count)],
        [i % 4 for i in range(count)],
        [i * 1000 for i in range(count)],
        [-i for i in range(count)],
        [0o644 for _ in range(count)],
        [b"h" * 32 if i % 3 else b"" for i in range(count)],
        [V if i % 2 else b"" for i in range(count)],
        [b"../target" if i % 4 == 3 else b"" for i in range(count)] if links else [],
        [b"old/name" if i % 5 == 0 else b"" for i in range(count)] if links else [],
    )


def batch(*groups: Group, phase: Phase = Phase.CATCHUP) -> Batch:
    return Batch(b"u" * 16, 42, phase, list(groups))


BATCHES = [
    batch(phase=Phase.CATCHUP_COMPLETE),
    batch(group(b"", 3)),
    batch(group(b"a", 0), group(b"a/b", 7), group(b"c", 1)),
    batch(group(b"d", 2000), *[group(b"e/%d" % i, 1) for i in range(1000)]),
]


@pytest.mark.parametrize("sample", BATCHES, ids=lambda b: str(b.count()))
def test_batches_survive_the_wire(sample: Batch) -> None:
    assert codec.decode_batch(codec.encode_batch(sample)) == sample


def test_sparse_columns_come_back_where_any_entry_has_them() -> None:
    with_links, without = group(b"a", 8, links=True), group(b"b", 2)
    back = codec.decode_batch(codec.encode_batch(batch(with_links, without)))
    assert back.groups[0] == with_links
    assert back.groups[1] == replace(without, targets=[b"", b""], renamed_from=[b"", b""])


def _column(name: str, value: Any) -> columns.Columns:  # noqa: ANN401 - bytes or int
    return replace(columns.pack(batch(group(b"dir", 4, links=True), group(b"e", 2))), **{name: value})


def _u(width: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(width, "little") for value in values)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uuid", b""),
        ("uuid", b"u" * 17),
        ("seq", 2**63),
        ("phase", 4),
        ("directory_counts", _u(4, 4, 3)),
        ("directory_counts", _u(4, 2**32 - 1, 7)),
        ("directory_counts", b"123"),
        ("directory_lengths", _u(4, 3, 2)),
        ("directory_lengths", _u(4, 2**32 - 1, 2**32 - 1)),
        ("directories", b"a/.e"),
        ("directories", b"/abc"),
        ("directories", b"a\0be"),
        ("name_lengths", bytes([9] * 6)),
        ("name_lengths", bytes(7)),
        ("name_lengths", bytes([0, 16, 8, 8, 8, 8])),
        ("names", b"a/b-0678" * 6),
        ("names", b"a\0b-0678" * 6),
        ("holdings", bytes([5] * 6)),
        ("holdings", bytes(5)),
        ("kinds", bytes([9] * 6)),
        ("sizes", _u(8, *[2**63] * 6)),
        ("sizes", b""),
        ("mtimes_ns", bytes(47)),
        ("modes", _u(2, *[0o10000] * 6)),
        ("hashed", bytes([2] * 6)),
        ("hashed", bytes(6)),
        ("hashes", b"h" * 31),
        ("vector_lengths", _u(2, 16)),
        ("vectors", bytes(32)),
        ("vector_index", _u(2, *[9] * 6)),
        ("target_lengths", _u(2, *[65535] * 6)),
        ("targets", b"x"),
        ("renamed", b"/etcpass"),
        ("renamed_lengths", _u(4, 1)),
    ],
)
def test_one_bad_column_refuses_the_batch(name: str, value: object) -> None:
    assert columns.unpack(_column("seq", 42)).count() == 6
    with pytest.raises(RemoteProtocolError):
        columns.unpack(_column(name, value))


@pytest.mark.parametrize("name", [b".", b".."])
def test_dots_are_no_names(name: bytes) -> None:
    bad = Group(RelPath(b""), [name], [1], [1], [0], [0], [0], [b""], [V])
    with pytest.raises(RemoteProtocolError):
        columns.unpack(columns.pack(batch(bad)))


@pytest.mark.parametrize("old", [b"d/..", b"d/", b"d//b", b"d/../b", b"/b", b"..", b"d/" + b"n" * 256])
def test_every_origin_of_a_rename_is_checked(old: bytes) -> None:
    good = Group(RelPath(b""), [b"a", b"b"], [1] * 2, [1] * 2, [0] * 2, [0] * 2, [0] * 2, [b""] * 2, [V] * 2)
    assert columns.unpack(columns.pack(batch(replace(good, renamed_from=[b"d/a", b"d/b"])))).count() == 2
    bad = replace(good, renamed_from=[b"d/a", old])
    with pytest.raises(RemoteProtocolError):
        columns.unpack(columns.pack(batch(bad)))


def test_a_batch_whose_lists_differ_is_not_sent() -> None:
    bad = group(b"a", 3)
    bad.kinds.pop()
    with pytest.raises(LocalProtocolError):
        codec.encode_batch(batch(bad))


def test_too_many_entries_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        columns.unpack(columns.pack(batch(group(b"", messages.MAX_ENTRIES + 1))))


def test_a_compression_bomb_is_refused_without_being_blown_up() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 * 1024 * 1024))
    streamed = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    for payload in (bomb, streamed):
        with pytest.raises(RemoteProtocolError):
            codec.decode_batch(payload)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MAX_PAYLOAD


def test_damaged_batches_never_give_anything_but_a_protocol_error() -> None:
    raw = codec.decompress(codec.encode_batch(batch(group(b"dir", 20, links=True))))
    rng = random.Random(2)
    for _ in range(500):
        damaged = bytearray(raw)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(raw))] = rng.randrange(256)
        payload = zstandard.ZstdCompressor().compress(bytes(damaged))
        try:
            assert isinstance(codec.decode_batch(payload), Batch)
        except RemoteProtocolError as error:
            assert str(error)  # noqa: PT017 - either outcome is right


def test_splitting_keeps_entries_order_and_positions() -> None:
    whole = batch(*[group(b"d%d" % i, 3000) for i in range(5)], phase=Phase.CATCHUP_START)
    parts = list(columns.split(whole, 17))
    assert all(part.count() <= messages.MAX_ENTRIES for part in parts)
    assert [part.phase for part in parts] == [Phase.CATCHUP_START] + [Phase.CATCHUP] * (len(parts) - 1)
    assert [part.seq for part in parts] == [17] * (len(parts) - 1) + [42]
    flat = [(g.directory, name) for part in parts for g in part.groups for name in g.names]
    assert flat == [(g.directory, name) for g in whole.groups for name in g.names]
    whole.phase = Phase.CATCHUP_COMPLETE
    assert [p.phase for p in columns.split(whole, 17)][-2:] == [Phase.CATCHUP, Phase.CATCHUP_COMPLETE]


def test_the_widest_entries_still_fit_a_frame() -> None:
    wide = Group(
        RelPath(b"/".join([b"d" * 255] * 20)),
        [random.Random(i).randbytes(127).hex().encode() for i in range(300)],
        [1] * 300,
        [3] * 300,
        [2**63 - 1] * 300,
        [2**63 - 1] * 300,
        [0o7777] * 300,
        [random.Random(i).randbytes(32) for i in range(300)],
        [
            vector_of({PeerKey(random.Random(i * j).randbytes(8)): 2**64 - 1 for j in range(200)})
            for i in range(300)
        ],
        [random.Random(-i).randbytes(2000).hex().encode() for i in range(300)],
        [b"/".join([random.Random(i).randbytes(100).hex().encode()] * 200) for i in range(300)],
    )
    parts = list(columns.split(batch(wide), 0))
    assert sum(part.count() for part in parts) == 300
    for part in parts:
        payload = codec.encode_batch(part)
        assert len(payload) <= MAX_PAYLOAD
        assert codec.decode_batch(payload) == part
