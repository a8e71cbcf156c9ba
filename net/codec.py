"""Messages to bytes and back: the only module that knows Cap'n Proto.

Pure. Every field of what comes in is checked here, so that the layers above may trust types, lengths
and ranges; whether a peer *may* ask for something is not decided here. Whatever the bytes, decoding
gives a message or `RemoteProtocolError`, in memory bounded by the size of the frame.
"""

from __future__ import annotations

import importlib.resources
import itertools
import struct
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import capnp
import zstandard

from core.announce import Batch
from core.byteranges import ByteRanges
from core.errors import LocalProtocolError, PathError, RemoteProtocolError
from core.paths import check_path
from core.types import HASH_BYTES, MAX_BLOCK_BYTES, MAX_BLOCKS, Hash, Vector
from core.versions import is_canonical
from net import columns, messages
from net.frames import MAX_HEADER, MAX_PAYLOAD
from net.messages import MAX_CONTENTS, MAX_LEASES, MAX_SMALL, MAX_WINDOW, Body

_wire = capnp.load(str(importlib.resources.files("net") / "wire.capnp"))
_Message = _wire.Message
_Announcements = _wire.Announcements

_NESTING = 8
"""LIMIT: depth of pointers; the schema needs three."""
_MAX_ARENAS = messages.SUBSCRIPTIONS_IN_FLIGHT
_MAX_ARENA_BYTES = 1024
_MAX_NAME = 256
_MAX_TEXT = 4096
_MAX_CAUSES = 16
_MAX_METHOD = 64
_MAX_OFFSET = (1 << 63) - 1
_NOT_HELD = 0xFFFFFFFF
_COMPRESSION_LEVEL = 1

_Reader = Any
_Builder = Any


def encode(request_id: int, body: Body) -> bytes:
    """Return the header of a frame for ``body``.

    Raises:
        LocalProtocolError: it does not fit the limits.
    """
    message = _Message.new_message()
    message.id = request_id
    try:
        _ENCODERS[type(body)](message, body)
        header: bytes = message.to_bytes()
    except (capnp.KjException, OverflowError, ValueError) as error:
        raise LocalProtocolError(f"{type(body).__name__} cannot be encoded: {error}") from error
    if len(header) > MAX_HEADER:
        raise LocalProtocolError(f"{type(body).__name__} of {len(header)} bytes")
    return header


def decode(header: bytes) -> tuple[int, Body]:
    """Return the request id and the checked message of a header.

    Raises:
        RemoteProtocolError: it is not a message, or a field is not what it must be.
    """
    limit = len(header) // 8 + 64
    try:
        with _Message.from_bytes(header, traversal_limit_in_words=limit, nesting_limit=_NESTING) as message:
            kind = message.which()
            decoder = _DECODERS.get(kind)
            if decoder is None:
                raise RemoteProtocolError(f"unknown message {kind!r}")
            return message.id, decoder(message)
    except (capnp.KjException, UnicodeError, ValueError, PathError, struct.error) as error:
        raise RemoteProtocolError(f"malformed message: {_first_line(error)}") from error


def encode_batch(batch: Batch) -> bytes:
    """Return the payload of `messages.Announcements` for a batch that `columns.split` made.

    Raises:
        LocalProtocolError: it is too large or has values that do not fit.
    """
    packed = columns.pack(batch)
    message = _Announcements.new_message(num_first_segment_words=columns.MAX_BATCH_BYTES // 8)
    for attribute, name in _COLUMN_FIELDS:
        setattr(message, name, getattr(packed, attribute))
    raw: bytes = message.to_bytes()
    if len(raw) > MAX_PAYLOAD:
        raise LocalProtocolError(f"announcement of {len(raw)} bytes")
    return zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(raw)


def decode_batch(payload: bytes | memoryview) -> Batch:
    """Return the checked batch of the payload of a `messages.Announcements`.

    Raises:
        RemoteProtocolError: anything in it is not what it must be.
    """
    raw = decompress(payload)
    try:
        with _Announcements.from_bytes(
            raw, traversal_limit_in_words=len(raw) // 8 + 64, nesting_limit=_NESTING
        ) as message:
            packed = columns.Columns(*(getattr(message, name) for _, name in _COLUMN_FIELDS))
    except (capnp.KjException, ValueError) as error:
        raise RemoteProtocolError(f"malformed announcement: {_first_line(error)}") from error
    return columns.unpack(packed)


def decompress(payload: bytes | memoryview) -> bytes:
    """Return a compressed payload as it was before, at most `MAX_PAYLOAD` bytes.

    Raises:
        RemoteProtocolError: it is damaged, or larger.
    """
    try:
        size = zstandard.frame_content_size(payload)
        if not 0 <= size <= MAX_PAYLOAD:
            raise RemoteProtocolError(f"compressed payload of {size} bytes")
        raw = zstandard.ZstdDecompressor().decompress(payload, max_output_size=MAX_PAYLOAD)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"damaged compression: {error}") from error
    return raw


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


_COLUMN_FIELDS = [(field.name, _camel(field.name)) for field in fields(columns.Columns)]


# --- to bytes ---------------------------------------------------------------------------------


def _put_hello(message: _Builder, body: messages.Hello) -> None:
    hello = message.init("hello")
    hello.protocol = body.protocol
    hello.name = body.name.encode("utf-8", "surrogateescape")
    hello.features = body.features
    arenas = hello.init("arenas", len(body.arenas))
    for index, arena in enumerate(sorted(body.arenas)):
        arenas[index] = arena.encode()
    hello.clockNs = body.clock_ns


def _put_failure(message: _Builder, body: messages.Failure) -> None:
    failure = message.init("error")
    failure.code = body.code
    failure.message = _text(body.message)
    causes = failure.init("causes", min(len(body.causes), _MAX_CAUSES))
    for index, cause in enumerate(body.causes[:_MAX_CAUSES]):
        causes[index] = _text(cause)
    failure.hint = _text(body.hint)


def _text(text: str) -> str:
    # Messages of errors may hold names that are not UTF-8, and are only shown.
    return text.encode("utf-8", "backslashreplace")[:_MAX_TEXT].decode("utf-8", "ignore").replace("\0", "\\0")


def _put_subscribe(message: _Builder, body: messages.Subscribe) -> None:
    request = message.init("subscribe")
    request.arena = body.arena.encode()
    request.uuid = body.uuid
    request.seq = body.seq
    request.window = body.window


def _put_acknowledge(message: _Builder, body: messages.Acknowledge) -> None:
    request = message.init("acknowledge")
    request.arena = body.arena.encode()
    request.uuid = body.uuid
    request.seq = body.seq


def _put_read(message: _Builder, body: messages.Read) -> None:
    request = message.init("read")
    request.arena = body.arena.encode()
    request.content = body.content
    request.ranges = body.ranges.encode()
    request.interactive = body.interactive
    request.window = body.window


def _put_read_version(message: _Builder, body: messages.ReadVersion) -> None:
    request = message.init("readVersion")
    request.arena = body.arena.encode()
    request.path = body.path
    request.vector = body.vector
    request.offset = body.offset
    request.length = body.length


def _put_read_many(message: _Builder, body: messages.ReadMany) -> None:
    request = message.init("readMany")
    request.arena = body.arena.encode()
    request.contents = b"".join(body.contents)
    request.sizes = struct.pack(f"<{len(body.sizes)}I", *body.sizes)
    request.window = body.window


def _put_blocks(message: _Builder, body: messages.Blocks) -> None:
    request = message.init("blocks")
    request.arena = body.arena.encode()
    request.content = body.content
    request.first = body.first
    request.count = body.count


def _put_have(message: _Builder, body: messages.Have) -> None:
    request = message.init("have")
    request.arena = body.arena.encode()
    request.contents = b"".join(body.contents)


def _put_lease(message: _Builder, body: messages.Lease) -> None:
    request = message.init("lease")
    request.arena = body.arena.encode()
    request.contents = b"".join(body.contents)
    request.pathLengths = struct.pack(f"<{len(body.paths)}I", *map(len, body.paths))
    request.paths = b"".join(body.paths)


def _put_many(message: _Builder, body: messages.Many) -> None:
    many = message.init("many")
    many.first = body.first
    lengths = [_NOT_HELD if length is None else length for length in body.lengths]
    many.lengths = struct.pack(f"<{len(lengths)}I", *lengths)


def _put(name: str, attribute: str | None = None) -> Callable[[_Builder, Any], None]:
    def put(message: _Builder, body: object) -> None:
        setattr(message, name, None if attribute is None else getattr(body, attribute))

    return put


_ENCODERS: dict[type[Body], Callable[[_Builder, Any], None]] = {
    messages.Hello: _put_hello,
    messages.Ping: _put("ping", "token"),
    messages.Pong: _put("pong", "token"),
    messages.Goodbye: _put("goodbye", "reason"),
    messages.Credit: _put("credit", "amount"),
    messages.Cancel: _put("cancel"),
    messages.End: _put("end"),
    messages.Failure: _put_failure,
    messages.Subscribe: _put_subscribe,
    messages.Acknowledge: _put_acknowledge,
    messages.Read: _put_read,
    messages.ReadVersion: _put_read_version,
    messages.ReadMany: _put_read_many,
    messages.Blocks: _put_blocks,
    messages.Have: _put_have,
    messages.Lease: _put_lease,
    messages.Control: _put("control", "method"),
    messages.Announcements: _put("announcements"),
    messages.Data: _put("data", "offset"),
    messages.Many: _put_many,
    messages.BlockHashes: _put("blockList", "block_bytes"),
    messages.Flags: _put("flags"),
    messages.Result: _put("result", "more"),
}


# --- from bytes -------------------------------------------------------------------------------


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise RemoteProtocolError(f"malformed message: {what}")


def _arena(data: bytes) -> str:
    _require(0 < len(data) <= _MAX_ARENA_BYTES, "name of an arena")
    check_path(data)
    return data.decode()


def _content(data: bytes) -> Hash:
    _require(len(data) == HASH_BYTES, "hash of another length")
    return Hash(data)


def _contents(data: bytes) -> list[Hash]:
    _require(len(data) % HASH_BYTES == 0 and len(data) <= MAX_CONTENTS * HASH_BYTES, "list of hashes")
    return [Hash(data[at : at + HASH_BYTES]) for at in range(0, len(data), HASH_BYTES)]


def _window(value: int) -> int:
    _require(0 < value <= MAX_WINDOW, "credit out of bounds")
    return value


def _uuid(data: bytes) -> bytes:
    _require(len(data) in (0, 16), "history of another length")
    return data


def _seq(value: int) -> int:
    _require(value <= _MAX_OFFSET, "position out of bounds")
    return value


def _get_hello(message: _Reader) -> messages.Hello:
    hello = message.hello
    arenas = hello.arenas
    _require(len(arenas) <= _MAX_ARENAS and len(hello.name) <= _MAX_NAME, "hello out of bounds")
    return messages.Hello(
        name=hello.name.decode("utf-8", "surrogateescape"),
        arenas=frozenset(_arena(arena) for arena in arenas),
        clock_ns=hello.clockNs,
        features=hello.features,
        protocol=hello.protocol,
    )


def _get_goodbye(message: _Reader) -> messages.Goodbye:
    return messages.Goodbye(message.goodbye[:_MAX_TEXT])


def _get_credit(message: _Reader) -> messages.Credit:
    return messages.Credit(_window(message.credit))


def _get_failure(message: _Reader) -> messages.Failure:
    failure = message.error
    causes = failure.causes
    _require(len(causes) <= _MAX_CAUSES, "too many causes")
    texts = tuple(cause[:_MAX_TEXT] for cause in causes)
    return messages.Failure(failure.code, failure.message[:_MAX_TEXT], texts, failure.hint[:_MAX_TEXT])


def _get_subscribe(message: _Reader) -> messages.Subscribe:
    r = message.subscribe
    return messages.Subscribe(_arena(r.arena), _uuid(r.uuid), _seq(r.seq), _window(r.window))


def _get_acknowledge(message: _Reader) -> messages.Acknowledge:
    r = message.acknowledge
    _require(len(r.uuid) == 16, "acknowledgement of no history")
    return messages.Acknowledge(_arena(r.arena), r.uuid, _seq(r.seq))


def _get_read(message: _Reader) -> messages.Read:
    r = message.read
    data = r.ranges
    _require(0 < len(data) <= MAX_CONTENTS * 16, "number of ranges")
    ranges = ByteRanges.decode(data)
    # What encode gives back is the same only if it was sorted, disjoint and joined already.
    _require(ranges.encode() == data and max(end for _, end in ranges) <= _MAX_OFFSET, "ranges")
    return messages.Read(_arena(r.arena), _content(r.content), ranges, r.interactive, _window(r.window))


def _get_read_version(message: _Reader) -> messages.ReadVersion:
    r = message.readVersion
    path, vector = check_path(r.path), r.vector
    _require(path != b"" and is_canonical(vector), "version")
    _require(0 < r.length <= MAX_PAYLOAD and r.offset <= _MAX_OFFSET - r.length, "range")
    return messages.ReadVersion(_arena(r.arena), path, Vector(vector), r.offset, r.length)


def _get_read_many(message: _Reader) -> messages.ReadMany:
    r = message.readMany
    contents, data = _contents(r.contents), r.sizes
    _require(len(data) == 4 * len(contents) > 0, "sizes of contents")
    sizes = list(struct.unpack(f"<{len(contents)}I", data))
    _require(max(sizes) <= MAX_SMALL, "size of a small content")
    return messages.ReadMany(_arena(r.arena), contents, sizes, _window(r.window))


def _get_blocks(message: _Reader) -> messages.Blocks:
    r = message.blocks
    _require(0 < r.count <= MAX_BLOCKS and r.first + r.count <= MAX_BLOCKS, "range of blocks")
    return messages.Blocks(_arena(r.arena), _content(r.content), r.first, r.count)


def _get_have(message: _Reader) -> messages.Have:
    r = message.have
    contents = _contents(r.contents)
    _require(len(contents) > 0, "no content")
    return messages.Have(_arena(r.arena), contents)


def _get_lease(message: _Reader) -> messages.Lease:
    r = message.lease
    contents, lengths, joined = _contents(r.contents), r.pathLengths, r.paths
    _require(0 < len(contents) <= MAX_LEASES and len(lengths) == 4 * len(contents), "number of leases")
    sizes = struct.unpack(f"<{len(contents)}I", lengths)
    _require(sum(sizes) == len(joined) and min(sizes) > 0, "lengths of paths")
    ends = list(itertools.accumulate(sizes))
    paths = [check_path(joined[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    return messages.Lease(_arena(r.arena), paths, contents)


def _get_control(message: _Reader) -> messages.Control:
    method = message.control
    _require(0 < len(method) <= _MAX_METHOD, "name of a method")
    return messages.Control(method)


def _get_data(message: _Reader) -> messages.Data:
    offset = message.data
    _require(offset <= _MAX_OFFSET, "offset out of bounds")
    return messages.Data(offset)


def _get_many(message: _Reader) -> messages.Many:
    many = message.many
    data = many.lengths
    count = len(data) // 4
    _require(len(data) == 4 * count and 0 < count <= MAX_CONTENTS, "number of contents")
    lengths = struct.unpack(f"<{count}I", data)
    return messages.Many(many.first, [None if length == _NOT_HELD else length for length in lengths])


def _get_block_list(message: _Reader) -> messages.BlockHashes:
    block_bytes = message.blockList
    _require(0 < block_bytes <= MAX_BLOCK_BYTES, "size of a block")
    return messages.BlockHashes(block_bytes)


_DECODERS: dict[str, Callable[[_Reader], Body]] = {
    "hello": _get_hello,
    "ping": lambda message: messages.Ping(message.ping),
    "pong": lambda message: messages.Pong(message.pong),
    "goodbye": _get_goodbye,
    "credit": _get_credit,
    "cancel": lambda message: messages.Cancel(),
    "end": lambda message: messages.End(),
    "error": _get_failure,
    "subscribe": _get_subscribe,
    "acknowledge": _get_acknowledge,
    "read": _get_read,
    "readVersion": _get_read_version,
    "readMany": _get_read_many,
    "blocks": _get_blocks,
    "have": _get_have,
    "lease": _get_lease,
    "control": _get_control,
    "announcements": lambda message: messages.Announcements(),
    "data": _get_data,
    "many": _get_many,
    "blockList": _get_block_list,
    "flags": lambda message: messages.Flags(),
    "result": lambda message: messages.Result(message.result),
}
