from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from core.disk import open_root
from core.hashing import PIECE_BYTES, BlockHasher, TruncatedError, hash_batch, hash_descriptor, hash_file
from core.ports import Unhashed
from core.types import BLOCK_BYTES, BlockList, RelPath

OLD_NS = 1_600_000_000_000_000_000


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = open_root(tmp_path)
    yield fd
    os.close(fd)


def make(root: Path, name: str, data: bytes, mtime_ns: int = OLD_NS) -> Unhashed:
    (root / name).write_bytes(data)
    os.utime(root / name, ns=(mtime_ns, mtime_ns))
    found = os.stat(root / name)
    return Unhashed(RelPath(os.fsencode(name)), found.st_size, found.st_mtime_ns, found.st_ino, b"")


def ignore(_: int) -> None:
    """Do not count."""


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        4096,
        BLOCK_BYTES - 1,
        BLOCK_BYTES,
        BLOCK_BYTES + 1,
        PIECE_BYTES,
        PIECE_BYTES + 7,
        3 * PIECE_BYTES + 131,
    ],
)
def test_hash_and_block_list_of_any_size(tmp_path: Path, root_fd: int, size: int) -> None:
    data = os.urandom(size)
    file = make(tmp_path, "f", data)
    digest, blocks = hash_file(tmp_path / "f")
    assert digest == blake3(data).digest()
    if size <= BLOCK_BYTES:
        assert blocks is None
    else:
        assert blocks is not None
        assert blocks.block_bytes == BLOCK_BYTES
        pieces = [data[at : at + BLOCK_BYTES] for at in range(0, size, BLOCK_BYTES)]
        assert blocks.hashes == b"".join(blake3(piece).digest() for piece in pieces)
    [hashed] = hash_batch(root_fd, [file], ignore).hashed
    assert (hashed.hash, hashed.blocks) == (digest, blocks)


@pytest.mark.parametrize("size", [4 * PIECE_BYTES, 4 * PIECE_BYTES + 1, 9 * PIECE_BYTES + 131])
def test_blocks_larger_than_what_is_read_at_once(size: int) -> None:
    block_bytes = 4 * PIECE_BYTES
    data = memoryview(os.urandom(size))
    hasher = BlockHasher(block_bytes)
    for at in range(0, size, PIECE_BYTES):
        hasher.update(data[at : at + PIECE_BYTES])
    blocks = [data[at : at + block_bytes] for at in range(0, size, block_bytes)]
    assert hasher.finish() == BlockList(block_bytes, b"".join(blake3(block).digest() for block in blocks))


def test_a_shorter_file_than_expected_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 200_000)
    with (tmp_path / "f").open("rb") as file, pytest.raises(TruncatedError):
        hash_descriptor(file.fileno(), 300_000)


def test_odd_names_are_hashed(tmp_path: Path, root_fd: int) -> None:
    names = [os.fsdecode(name) for name in (b"\xff\xfe", b"a\nb", b"c:\\d", b"x" * 255)]
    outcome = hash_batch(root_fd, [make(tmp_path, name, b"data") for name in names], ignore)
    assert [item.path for item in outcome.hashed] == [os.fsencode(name) for name in names]


@pytest.mark.parametrize("size", [100, 500_000])
@pytest.mark.parametrize("change", ["append", "truncate", "rewrite", "replace"])
def test_a_file_changed_since_it_was_indexed_is_looked_at_again(
    tmp_path: Path, root_fd: int, size: int, change: str
) -> None:
    file = make(tmp_path, "f", b"a" * size)
    CHANGES[change](tmp_path / "f", size)
    outcome = hash_batch(root_fd, [file], ignore)
    assert outcome.again == [b"f"]
    assert not outcome.hashed


def test_a_file_changed_while_it_is_read_is_looked_at_again(tmp_path: Path, root_fd: int) -> None:
    file = make(tmp_path, "f", b"a" * 3 * PIECE_BYTES)
    calls = 0

    def rewrite(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            CHANGES["rewrite"](tmp_path / "f", 100)

    outcome = hash_batch(root_fd, [file], rewrite)
    assert calls == 3
    assert outcome.again == [b"f"]


def test_a_file_written_in_this_clock_tick_is_left_for_later(tmp_path: Path, root_fd: int) -> None:
    now_ns = time.time_ns()
    file = make(tmp_path, "f", b"data", mtime_ns=now_ns)
    assert hash_batch(root_fd, [file], ignore, lambda: now_ns + 5_000_000).again == [b"f"]
    assert len(hash_batch(root_fd, [file], ignore, lambda: now_ns + 50_000_000).hashed) == 1


def test_what_took_the_place_of_a_file_is_never_followed(tmp_path: Path, root_fd: int) -> None:
    (tmp_path / "d").mkdir()
    files = [make(tmp_path, name, b"data") for name in ("link", "gone", "dir", "fifo", "d/f")]
    (tmp_path / "secret").write_bytes(b"data")
    for name in ("link", "gone", "dir", "fifo", "d/f"):
        (tmp_path / name).unlink()
    os.symlink("secret", tmp_path / "link")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "d").rmdir()
    (tmp_path / "e").mkdir()
    make(tmp_path, "e/f", b"data")
    os.symlink("e", tmp_path / "d")
    outcome = hash_batch(root_fd, files, ignore)
    assert not outcome.hashed
    assert {*outcome.again, *(path for path, _ in outcome.unreadable)} == {file.path for file in files}


def _rewrite(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.write(b"b" * min(size, 10))


def _replace(path: Path, size: int) -> None:
    other = path.with_name("other")
    other.write_bytes(b"b" * size)
    os.utime(other, ns=(OLD_NS, OLD_NS))
    other.rename(path)


CHANGES: dict[str, Callable[[Path, int], object]] = {
    "append": lambda path, _: path.open("ab").write(b"x"),
    "truncate": lambda path, size: os.truncate(path, size // 2),
    "rewrite": _rewrite,
    "replace": _replace,
}
