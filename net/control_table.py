"""The methods of `core.api.Api` as a table: how arguments and results of each travel.

Made from the annotations of the protocol, so that a method is written once. MessagePack by msgspec, which
checks types on decoding.
"""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from core.api import Api
from core.errors import (
    WIRE_CODES,
    ConfigError,
    LocalProtocolError,
    RealizeError,
    RemoteError,
    RemoteProtocolError,
)
from net.messages import CHUNK_BYTES, Failure

MAX_VALUE = 64 * 1024 * 1024
"""LIMIT: bytes of one argument or result put together from parts."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method. ``stream``: it is an async generator, and each value is of the result's type."""

    name: str
    stream: bool
    signature: inspect.Signature
    arguments: msgspec.msgpack.Decoder[msgspec.Struct]
    result: msgspec.msgpack.Decoder[Any]

    def encode_arguments(self, args: tuple[object, ...], kwargs: dict[str, object]) -> bytes:
        """Return the arguments of a call as a map by name."""
        bound = self.signature.bind(*args, **kwargs)
        return msgspec.msgpack.encode(bound.arguments)

    def decode_arguments(self, payload: memoryview) -> dict[str, Any]:
        """Return keyword arguments for the method, defaults filled in.

        Raises:
            RemoteProtocolError: they are not those of the method.
        """
        try:
            return msgspec.structs.asdict(self.arguments.decode(payload))
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise RemoteProtocolError(f"arguments of {self.name}: {error}") from error

    def decode_result(self, data: bytes) -> Any:  # noqa: ANN401 - of the type annotated in Api
        """Return a value of the method's result.

        Raises:
            RemoteProtocolError: it is of another type.
        """
        try:
            return self.result.decode(data)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise RemoteProtocolError(f"result of {self.name}: {error}") from error


def _methods() -> Iterator[Method]:
    for name, function in vars(Api).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        hints = typing.get_type_hints(function)
        result = hints.pop("return")
        stream = typing.get_origin(result) is collections.abc.AsyncIterator
        parameters = list(inspect.signature(function).parameters.values())[1:]
        arguments = msgspec.defstruct(
            name,
            [
                (p.name, hints[p.name]) if p.default is p.empty else (p.name, hints[p.name], p.default)
                for p in parameters
            ],
            kw_only=True,
        )
        yield Method(
            name,
            stream,
            inspect.Signature(parameters),
            msgspec.msgpack.Decoder(arguments),
            msgspec.msgpack.Decoder(typing.get_args(result)[0] if stream else result),
        )


METHODS: dict[str, Method] = {method.name: method for method in _methods()}


def parts_of(value: object) -> Iterator[tuple[bytes, bool]]:
    """Return a value in parts of a frame each, with whether more follow.

    Raises:
        LocalProtocolError: it is far too large.
    """
    data = msgspec.msgpack.encode(value)
    if len(data) > MAX_VALUE:
        raise LocalProtocolError(f"answer of {len(data)} bytes")
    for at in range(0, len(data), CHUNK_BYTES):
        yield data[at : at + CHUNK_BYTES], at + CHUNK_BYTES < len(data)


_CLASSES = {code: cls for cls, code in WIRE_CODES.items()}


def error_of(failure: Failure) -> RealizeError:
    """Return the error that a failure stands for, of the same class, with its causes and hint."""
    error = _error(failure.code, failure.message, failure.hint)
    at: BaseException = error
    for cause in failure.causes:
        at.__cause__ = RealizeError(cause)
        at = at.__cause__
    return error


def _error(code: int, message: str, hint: str) -> RealizeError:
    cls = _CLASSES.get(code)
    if cls is None:
        return RemoteError(f"the daemon failed: {message}", code=code, hint=hint or "its log says more")
    if issubclass(cls, ConfigError):
        return cls([message], hint=hint)
    return cls(message, hint=hint)
