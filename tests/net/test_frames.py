"""Frames survive any split of the stream, and nothing out of bounds gets memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import LocalProtocolError, RemoteProtocolError
from net.frames import MAX_HEADER, MAX_PAYLOAD, PREFIX, FrameDecoder, encode_prefix

frames = st.lists(
    st.tuples(
        st.integers(2, 20).map(lambda words: bytes([words]) * (8 * words)),
        st.one_of(st.binary(max_size=100), st.integers(0, 200_000).map(lambda n: bytes([n % 251]) * n)),
        st.sampled_from([0, 1]),
    ),
    max_size=6,
)


def feed(decoder: FrameDecoder, data: bytes) -> list[tuple[bytes, bytes, int]]:
    out = []
    while data:
        buffer = decoder.buffer()
        count = min(len(buffer), len(data))
        buffer[:count] = data[:count]
        decoder.received(count)
        data = data[count:]
        while (frame := decoder.next_frame()) is not None:
            out.append((frame.header, bytes(frame.payload), frame.flags))
    return out


def wire(parts: list[tuple[bytes, bytes, int]]) -> bytes:
    return b"".join(encode_prefix(header, len(payload), flags) + payload for header, payload, flags in parts)


@settings(max_examples=60, deadline=None)
@given(frames, st.lists(st.integers(1, 5000), min_size=1, max_size=20))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(
    parts: list[tuple[bytes, bytes, int]], cuts: list[int]
) -> None:
    data, decoder, out, at = wire(parts), FrameDecoder(), [], 0
    while at < len(data):
        step = cuts[at % len(cuts)]
        out += feed(decoder, data[at : at + step])
        at += step
    assert out == parts
    assert decoder.at_boundary


def test_byte_by_byte_gives_each_frame_with_its_last_byte() -> None:
    parts = [(b"h" * 16, b"payload", 0), (b"i" * 24, b"", 1)]
    decoder = FrameDecoder()
    seen = [len(feed(decoder, bytes([byte]))) for byte in wire(parts)]
    first = PREFIX.size + 16 + 7
    assert [at for at, count in enumerate(seen, 1) if count] == [first, first + PREFIX.size + 24]


def test_a_cut_frame_gives_nothing_and_is_noticed() -> None:
    data = wire([(b"h" * 16, b"payload", 0)])
    for length in range(1, len(data)):
        decoder = FrameDecoder()
        assert feed(decoder, data[:length]) == []
        assert not decoder.at_boundary


@pytest.mark.parametrize(
    ("header", "payload", "flags"),
    [
        (MAX_HEADER + 8, 0, 0),
        (0xFFFFFFF8, 0, 0),
        (16, MAX_PAYLOAD + 1, 0),
        (16, 0xFFFFFFFF, 0),
        (0, 0, 0),
        (8, 0, 0),
        (17, 0, 0),
        (16, 0, 2),
        (16, 0, 255),
    ],
)
def test_lengths_and_flags_out_of_bounds_are_refused_before_memory_is_taken(
    header: int, payload: int, flags: int
) -> None:
    decoder = FrameDecoder()
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        feed(decoder, PREFIX.pack(header, payload, flags))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000


def test_the_largest_frame_passes_in_bounded_memory() -> None:
    decoder = FrameDecoder()
    data = wire([(b"h" * MAX_HEADER, b"p" * MAX_PAYLOAD, 0)])
    assert [(len(h), len(p)) for h, p, _ in feed(decoder, data)] == [(MAX_HEADER, MAX_PAYLOAD)]


def test_payloads_stay_valid_while_more_comes() -> None:
    decoder = FrameDecoder()
    kept: list[memoryview] = []
    for number in range(40):
        data = encode_prefix(b"h" * 16, 100_000) + bytes([number]) * 100_000
        while data:
            buffer = decoder.buffer()
            count = min(len(buffer), len(data))
            buffer[:count] = data[:count]
            decoder.received(count)
            data = data[count:]
        frame = decoder.next_frame()
        assert frame is not None
        kept.append(frame.payload)
    assert [bytes(payload[:2]) for payload in kept] == [bytes([n]) * 2 for n in range(40)]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_frames_or_a_protocol_error(data: bytes) -> None:
    try:
        feed(FrameDecoder(), data)
    except RemoteProtocolError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


def test_frames_of_ours_keep_the_limits() -> None:
    for header, payload in ((b"", 0), (b"h" * (MAX_HEADER + 8), 0), (b"h" * 16, MAX_PAYLOAD + 1)):
        with pytest.raises(LocalProtocolError):
            encode_prefix(header, payload)
