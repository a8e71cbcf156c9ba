"""Making the rows and the files of a blob store agree at the start (spec 4 §Blobs).

What can be found, and what is done:

=============================================== ==================================================
a row without a file                            the row goes
a file without a row, named by the hash it has  it is adopted: whole, verified
any other name in the directories               a file is removed, a directory left with a warning
a file of another size than its row says        cut or grown; what was whole is checked again
a small blob written after the last flush       its hash is checked again
a blob of which nothing is recorded             row and file go
=============================================== ==================================================

`reconcile_directory` runs in a worker and decides; `BlobStore.start` applies the findings to the rows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from core.blobcheck import hash_file
from core.blobdisk import Disk, FileFacts
from core.blobrows import Area, BlobRow
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.types import HASH_BYTES, BlockList, Hash

_log = logging.getLogger("realize.core.reconcile")


@dataclass(slots=True)
class ReconcileReport:
    """What was found. ``lost``: contents of which something recorded is gone."""

    adopted: int = 0
    removed: int = 0
    resized: int = 0
    rechecked: int = 0
    lost: list[Hash] = field(default_factory=list)

    def add(self, other: ReconcileReport) -> None:
        """Take in what was found elsewhere."""
        self.adopted += other.adopted
        self.removed += other.removed
        self.resized += other.resized
        self.rechecked += other.rechecked
        self.lost += other.lost

    def __str__(self) -> str:
        """Say what was found, for the log."""
        return (
            f"{self.adopted} adopted, {self.removed} removed, {self.resized} of another size,"
            f" {self.rechecked} checked again, {len(self.lost)} lost"
        )

    def __bool__(self) -> bool:
        """Say whether anything was found."""
        return bool(self.adopted or self.removed or self.resized or self.rechecked or self.lost)


@dataclass(frozen=True, slots=True)
class Doubts:
    """What the last stop left in doubt, and what new rows get.

    Attributes:
        clean: The store was closed in order: sizes need not be looked at.
        flushed: Last epoch that is known to be on the disk.
        epoch: Epoch of rows that are written now.
        now_ns: Wall clock.
    """

    clean: bool
    flushed: int
    epoch: int
    now_ns: int


@dataclass(slots=True)
class Findings:
    """What is to be done to the rows of one directory."""

    report: ReconcileReport
    changed: list[BlobRow] = field(default_factory=list)
    gone: list[Hash] = field(default_factory=list)
    lists: list[tuple[Hash, BlockList]] = field(default_factory=list)


def reconcile_directory(
    disk: Disk, root_fd: int, first: int, rows: Mapping[Hash, BlobRow], doubts: Doubts
) -> Findings:
    """Compare the directory of hashes that begin with byte ``first`` with its rows; worker thread.

    Raises:
        StoreError: the directory cannot be read.
    """
    run = _Directory(disk, root_fd, first, doubts)
    names = run.names()
    for content, row in rows.items():
        if content not in names:
            run.lose(row)
        elif not doubts.clean or row.epoch > doubts.flushed:
            run.check(row)
    for content in names - rows.keys():
        run.adopt(content)
    return run.findings


class _Directory:
    def __init__(self, disk: Disk, root_fd: int, first: int, doubts: Doubts) -> None:
        self._disk, self._root_fd, self._doubts = disk, root_fd, doubts
        self._prefix = f"{first:02x}"
        self.findings = Findings(ReconcileReport())

    def _path(self, content: Hash) -> str:
        return f"{self._prefix}/{content.hex()}"

    def names(self) -> set[Hash]:
        found: set[Hash] = set()
        for name in self._disk.names(self._root_fd, self._prefix):
            content = _hash_of(name)
            if content is not None and name.startswith(self._prefix):
                found.add(content)
            else:
                self._remove(f"{self._prefix}/{name}")
        return found

    def _remove(self, path: str) -> None:
        try:
            self._disk.unlink(self._root_fd, path)
        except StoreError as error:  # a directory somebody put there
            _log.warning("%s in the blob directory is not ours: %s", os.fsencode(path), error)
        else:
            self.findings.report.removed += 1

    def lose(self, row: BlobRow) -> None:
        self.findings.gone.append(row.hash)
        if row.ranges:
            self.findings.report.lost.append(row.hash)

    def adopt(self, content: Hash) -> None:
        path = self._path(content)
        facts = self._disk.facts_at(self._root_fd, path)
        if facts.regular:
            digest, blocks = self._hash(path, facts.size)
            if digest == content:
                self.findings.report.adopted += 1
                self._adopted(content, facts, blocks)
                return
        self._remove(path)

    def _adopted(self, content: Hash, facts: FileFacts, blocks: BlockList | None) -> None:
        whole = ByteRanges.whole(facts.size)
        row = BlobRow(content, facts.size, whole, True, Area.WORKING, facts.disk_bytes,
                      self._doubts.now_ns, self._doubts.epoch)  # fmt: skip
        self.findings.changed.append(row)
        if blocks is not None:
            self.findings.lists.append((content, blocks))

    def check(self, row: BlobRow) -> None:
        path = self._path(row.hash)
        facts = self._disk.facts_at(self._root_fd, path)
        checked = self._resized(row, facts) if facts.regular else None
        if checked is not None and checked.verified and checked.epoch > self._doubts.flushed:
            self.findings.report.rechecked += 1
            right = self._hash(path, row.size)[0] == row.hash
            checked = replace(checked, epoch=self._doubts.epoch) if right else None
        if checked is None or not (checked.ranges or checked.verified):
            self.lose(row)
            self._remove(path)
            return
        if checked.ranges != row.ranges:
            self.findings.report.lost.append(row.hash)
        checked = replace(checked, disk_bytes=self._disk.facts_at(self._root_fd, path).disk_bytes)
        if checked != row:
            self.findings.changed.append(checked)

    def _resized(self, row: BlobRow, facts: FileFacts) -> BlobRow:
        if facts.size == row.size:
            return row
        self.findings.report.resized += 1
        fd = self._disk.open(self._root_fd, self._path(row.hash))
        try:
            self._disk.truncate(fd, row.size)
        finally:
            os.close(fd)
        left = row.ranges.intersection(ByteRanges.whole(facts.size))
        whole = row.verified and left == row.ranges
        # A file that somebody made longer may be changed as well: in doubt until it is hashed.
        return replace(row, ranges=left, verified=whole, epoch=self._doubts.epoch if whole else row.epoch)

    def _hash(self, path: str, size: int) -> tuple[Hash, BlockList | None]:
        fd = self._disk.open(self._root_fd, path)
        try:
            return hash_file(self._disk, fd, size)
        finally:
            os.close(fd)


def _hash_of(name: str) -> Hash | None:
    try:
        content = bytes.fromhex(name)
    except ValueError:
        return None
    return Hash(content) if len(content) == HASH_BYTES and content.hex() == name else None
