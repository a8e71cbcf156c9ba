"""Writing a group of small contents in one worker call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from core.blobdisk import Buffer, Disk
from core.errors import StoreError
from core.types import Hash

GroupItem = tuple[Hash, int, Buffer]
"""A whole small content: its hash, its size, and the bytes that should be it."""


@dataclass(frozen=True, slots=True)
class GroupWritten:
    """``right``: for each item up to the failure, whether it matched and is written."""

    right: list[bool]
    error: StoreError | None


def write_group(disk: Disk, root_fd: int, items: Sequence[GroupItem]) -> GroupWritten:
    """Check each content and write the right ones to their files; worker thread.

    Stops at the first file that cannot be written; what is torn then has no row and goes at the next
    start.
    """
    right: list[bool] = []
    for content, size, data in items:
        if len(data) != size or blake3(data).digest() != content:
            right.append(False)
            continue
        text = content.hex()
        try:
            disk.put(root_fd, f"{text[:2]}/{text}", data)
        except StoreError as error:
            return GroupWritten(right, error)
        right.append(True)
    return GroupWritten(right, None)
