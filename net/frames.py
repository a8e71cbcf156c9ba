"""Frames: a Cap'n Proto header and raw payload bytes with their lengths in front.

Pure, sans-IO. `FrameDecoder` lends out the memory that received bytes go into, so that payloads are
never copied: a payload is a view of the buffer it arrived in.

Invariant: no more memory is allocated than a frame within the limits needs.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from core.errors import LocalProtocolError, RemoteProtocolError

PREFIX = struct.Struct("<IIB")
MAX_HEADER = 1024 * 1024
"""LIMIT: bytes of a header (spec 5 §Frames)."""
MAX_PAYLOAD = 1024 * 1024
"""LIMIT: bytes of a payload (spec 5 §Frames)."""
MIN_HEADER = 16
"""A Cap'n Proto message has at least a segment table and a root pointer."""
FLAG_COMPRESSED = 1
KNOWN_FLAGS = FLAG_COMPRESSED

_BUFFER = 1024 * 1024
_SMALL_BUFFER = 64 * 1024
_LOW = 32 * 1024
_COPIED = 64 * 1024
"""LIMIT: smaller payloads are copied, so that a kept one pins at most 16 times its size."""


class Frame(NamedTuple):
    """One frame as received. ``payload`` is valid as long as it is referred to."""

    header: bytes
    payload: memoryview
    flags: int


def encode_prefix(header: bytes, payload_length: int, flags: int = 0) -> bytes:
    """Return everything of a frame before its payload.

    Raises:
        LocalProtocolError: a length is out of bounds.
    """
    if not MIN_HEADER <= len(header) <= MAX_HEADER or payload_length > MAX_PAYLOAD:
        raise LocalProtocolError(f"frame of {len(header)}+{payload_length} bytes is out of bounds")
    return PREFIX.pack(len(header), payload_length, flags) + header


class FrameDecoder:
    """Cuts a stream of bytes into frames: fill `buffer`, say `received`, take `next_frame`."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._view = memoryview(bytearray(_SMALL_BUFFER))
        self._start = 0
        self._end = 0
        self._last = 0
        self._lengths: tuple[int, int, int] | None = None

    def buffer(self) -> memoryview:
        """Return free memory for the next bytes; never empty."""
        need = PREFIX.size if self._lengths is None else sum(self._lengths[:2])
        if len(self._view) - self._start < need or len(self._view) - self._end < _LOW:
            self._renew(need)
        return self._view[self._end :]

    def _renew(self, need: int) -> None:
        # Frames that were handed out may still refer to the old buffer, so it is left to them.
        tail = self._view[self._start : self._end]
        usual = _BUFFER if self._last >= _LOW // 4 else _SMALL_BUFFER
        view = memoryview(bytearray(max(need + _LOW, len(tail) + _LOW, usual)))
        view[: len(tail)] = tail
        self._view, self._start, self._end = view, 0, len(tail)

    def received(self, count: int) -> None:
        """Note that ``count`` bytes were put at the beginning of `buffer`."""
        self._end += count
        self._last = count

    def next_frame(self) -> Frame | None:
        """Return the next frame, or None when more bytes are needed.

        Raises:
            RemoteProtocolError: a length or flag is out of bounds.
        """
        if self._lengths is None:
            if self._end - self._start < PREFIX.size:
                return None
            self._lengths = self._check(*PREFIX.unpack_from(self._view, self._start))
            self._start += PREFIX.size
        header_length, payload_length, flags = self._lengths
        middle = self._start + header_length
        stop = middle + payload_length
        if stop > self._end:
            return None
        payload = self._view[middle:stop]
        if payload_length < _COPIED:
            payload = memoryview(bytes(payload))
        frame = Frame(bytes(self._view[self._start : middle]), payload, flags)
        self._start = stop
        self._lengths = None
        return frame

    @property
    def at_boundary(self) -> bool:
        """Whether the stream could end here without cutting a frame."""
        return self._lengths is None and self._start == self._end

    @staticmethod
    def _check(header_length: int, payload_length: int, flags: int) -> tuple[int, int, int]:
        if not MIN_HEADER <= header_length <= MAX_HEADER or header_length % 8:
            raise RemoteProtocolError(f"frame header of {header_length} bytes")
        if payload_length > MAX_PAYLOAD:
            raise RemoteProtocolError(f"frame payload of {payload_length} bytes")
        if flags & ~KNOWN_FLAGS:
            raise RemoteProtocolError(f"unknown frame flags {flags:#x}")
        return header_length, payload_length, flags
