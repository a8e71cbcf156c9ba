"""Hashes of contents: block lists, and a whole hash that follows what arrives in any order."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import core.blobcheck
from core.blobcheck import WholeHash, absorb, bad_blocks, hash_file
from core.blobdisk import LocalDisk
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.types import BLOCK_BYTES
from tests.fakes.links import blocks_of, hash_of

DISK = LocalDisk()
STEP = 4096


def scratch(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDWR)


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 2_500_001])
def test_hash_and_block_list_in_one_pass(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    fd = scratch(tmp_path / "file", data)
    digest, blocks = hash_file(DISK, fd, size)
    assert digest == hash_of(data)
    assert blocks == (blocks_of(data) if size > BLOCK_BYTES else None)
    with pytest.raises(StoreError):
        hash_file(DISK, fd, size + 1)
    os.close(fd)


def test_blocks_larger_than_a_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core.blobcheck, "_READ_BYTES", 50_000)
    data = os.urandom(3 * BLOCK_BYTES + 7)
    fd = scratch(tmp_path / "file", data)
    assert hash_file(DISK, fd, len(data)) == (hash_of(data), blocks_of(data))
    os.close(fd)


def test_bad_blocks_are_named(tmp_path: Path) -> None:
    data = bytearray(os.urandom(3 * BLOCK_BYTES + 7))
    blocks = blocks_of(bytes(data))
    data[BLOCK_BYTES] ^= 1
    data[-1] ^= 1
    fd = scratch(tmp_path / "file", bytes(data))
    assert bad_blocks(DISK, fd, len(data), blocks) == ByteRanges(
        [(BLOCK_BYTES, 2 * BLOCK_BYTES), (3 * BLOCK_BYTES, len(data))]
    )
    os.close(fd)


@settings(max_examples=40, deadline=None)
@given(pages=st.integers(1, 20), tail=st.integers(0, STEP - 1), seed=st.integers(0, 1000), held=st.booleans())
def test_the_whole_hash_follows_any_order(
    tmp_path_factory: pytest.TempPathFactory, pages: int, tail: int, seed: int, held: bool
) -> None:
    dice = random.Random(seed)
    data = os.urandom(pages * STEP + tail)
    fd = scratch(tmp_path_factory.mktemp("whole") / "file", bytes(len(data)))
    pieces = [(at, data[at : at + STEP]) for at in range(0, len(data), STEP)]
    here = ByteRanges()
    if held:
        at, piece = pieces.pop(dice.randrange(len(pieces)))
        os.pwrite(fd, piece, at)
        here = ByteRanges([(at, at + len(piece))])
    dice.shuffle(pieces)
    whole = WholeHash(DISK, fd, len(data), here)

    def bring(mine: list[tuple[int, bytes]]) -> None:
        for at, piece in mine:
            expected = [hash_of(piece)]
            assert absorb(DISK, fd, at, memoryview(piece), STEP, expected, whole).bad == ()
            if dice.random() < 0.3:
                whole.catch_up(STEP)

    threads = [threading.Thread(target=bring, args=(pieces[n::2],)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert whole.finish() == hash_of(data)
    os.close(fd)


def test_a_gap_is_not_hashed_over(tmp_path: Path) -> None:
    fd = scratch(tmp_path / "file", bytes(10))
    whole = WholeHash(DISK, fd, 10, ByteRanges([(0, 4), (5, 10)]))
    with pytest.raises(ValueError, match="gap"):
        whole.finish()
    os.close(fd)


def test_wrong_blocks_are_not_written(tmp_path: Path) -> None:
    data = os.urandom(4 * STEP)
    fd = scratch(tmp_path / "file", bytes(len(data)))
    expected = [hash_of(data[at : at + STEP]) for at in range(0, len(data), STEP)]
    expected[1] = hash_of(b"other")
    done = absorb(DISK, fd, 0, memoryview(data), STEP, expected, None)
    assert done.good == ((0, STEP), (2 * STEP, 4 * STEP))
    assert done.bad == ((STEP, 2 * STEP),)
    assert os.pread(fd, STEP, STEP) == bytes(STEP)
    os.close(fd)
