"""Where the bytes of an open file come from, without a mount."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from core.byteranges import ByteRanges
from core.errors import ChangedError
from core.loops import TrioThread
from core.ports import Fetched, MountBackend
from core.types import Hash, Inode
from fuse.sources import BlobSource

T = TypeVar("T")
DATA = os.urandom(500_000)


class InlineEngine:
    """Calls what it is asked to, in the same loop."""

    async def call(self, function: Callable[..., Awaitable[T]], *args: Any) -> T:  # noqa: ANN401
        return await function(*args)

    def post(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401
        function(*args)


class Answers:
    """A backend that stores up to an offset and streams from there on."""

    def __init__(self, path: Path, stored: int) -> None:
        self.path, self.stored = path, stored
        path.write_bytes(DATA[:stored])

    def opened(self, *_: object) -> None:
        """Nothing is counted."""

    closed = opened

    async def fetch(self, *args: Any) -> Fetched:  # noqa: ANN401
        start, end = args[4:6]
        if start < self.stored:
            return Fetched(ByteRanges([(0, self.stored)]))
        return Fetched(ByteRanges(), DATA[start : min(end, start + 70_000)])


def source(answers: Answers) -> BlobSource:
    return BlobSource(
        cast(MountBackend, answers), cast(TrioThread, InlineEngine()), "docs", Inode(7), Hash(b"h" * 32),
        len(DATA), lambda: os.open(answers.path, os.O_RDONLY), 5.0,
    )  # fmt: skip


@pytest.mark.trio
@pytest.mark.parametrize("stored", [0, 1, 100_000, 250_001, len(DATA)])
async def test_a_read_may_be_stored_in_part_and_streamed_in_part(tmp_path: Path, stored: int) -> None:
    read = source(Answers(tmp_path / "blob", stored))
    for offset, length in ((0, len(DATA)), (90_000, 300_000), (stored, 1000), (len(DATA) - 5, 4096), (3, 0)):
        assert bytes(await read.read(offset, length)) == DATA[offset : offset + length]
    read.close()


@pytest.mark.trio
async def test_an_engine_that_gives_nothing_is_an_error(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "blob", 100)
    read = source(answers)

    async def nothing(*_: object) -> Fetched:
        return Fetched(ByteRanges([(0, 100)]))

    answers.fetch = nothing  # type: ignore[method-assign]
    with pytest.raises(ChangedError):
        await read.read(50, 100)
    read.close()
