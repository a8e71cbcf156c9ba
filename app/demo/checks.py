"""What the narrated run looks at: files on a mount and beside it, compared byte for byte."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from app.demo.samples import Sample

CHUNK_BYTES = 1024 * 1024


def attribute(path: Path, name: str) -> str:
    """Return one of our extended attributes: ``state``, ``mark``, ``progress``."""
    return os.getxattr(path, f"user.realize.{name}").decode(errors="surrogateescape")


def held_bytes(path: Path) -> int:
    """Return the bytes of a file's content that are held here, from its progress attribute."""
    return int(attribute(path, "progress").split("/")[0])


def forget_cached_pages(path: Path) -> None:
    """Drop a file's pages from the kernel's cache, so that the next read reaches the daemon."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read_range(path: Path, offset: int, length: int) -> bytes:
    """Read a part of a file without the kernel reading ahead of it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        return os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)


def chunks(path: Path) -> Iterator[bytes]:
    """Yield the content of a file in pieces."""
    with open(path, "rb", buffering=0) as file:
        while piece := file.read(CHUNK_BYTES):
            yield piece


def becomes(path: Path, content: bytes) -> bool:
    """Say whether a file already has this content; it may not be there yet, or be changing."""
    try:
        return same_content(path, content)
    except OSError:
        return False


def same_content(path: Path, content: bytes) -> bool:
    """Say whether a file has exactly this content."""
    offset = 0
    for piece in chunks(path):
        if content[offset : offset + len(piece)] != piece:
            return False
        offset += len(piece)
    return offset == len(content)


def lists(view: Path, samples: list[Sample]) -> bool:
    """Say whether every sample is shown below ``view`` with its size."""
    root = os.fsencode(view)
    try:
        return all(
            os.stat(os.path.join(root, sample.path)).st_size == len(sample.content) for sample in samples
        )
    except FileNotFoundError:
        return False


def same_metadata(view: Path, datadir: Path, samples: list[Sample]) -> bool:
    """Say whether mtimes (to the nanosecond) and modes below ``view`` are those of the real files."""
    for sample in samples:
        shown = os.stat(os.path.join(os.fsencode(view), sample.path))
        real = os.stat(os.path.join(os.fsencode(datadir), sample.path))
        if (shown.st_mtime_ns, shown.st_mode) != (real.st_mtime_ns, real.st_mode):
            return False
    return True


def save(path: Path, content: bytes) -> None:
    """Save a file the way editors do: written beside its place, then renamed over it."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    os.rename(draft, path)
