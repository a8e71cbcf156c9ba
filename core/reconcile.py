"""Making the rows and the files of a blob store agree at the start (spec 4 §Blobs).

What can be found, and what is done:

=============================================== ==================================================
a row without a file                            the row goes
a file without a row, named by the hash it has  it is adopted: whole, verified
any other name in the directories               a file is removed, a directory left with a warning
a small blob written after the last flush       it is in doubt
a file of another change time than its row's    it is in doubt: being written when the daemon was killed, or
                                                touched by somebody else since
a file of another size than its row says        in doubt likewise, and cut or grown to that size
a blob of which nothing was written             row and file go
=============================================== ==================================================

Whole blobs in doubt are hashed again. Wrong blocks are forgotten, all of them if there is no block list to
tell them. What was fetched of a blob in part, recorded or only written before the daemon was killed, counts
again once its blocks were compared with the list that the next fetch has (`Blob.vouch`).

`survey_directory` and `reconcile_directory` run in a worker and decide; `BlobStore.start` applies the
findings to the rows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from core.blobcheck import hash_file, matching_blocks
from core.blobdisk import Disk, FileFacts
from core.blobrows import Area, BlobRow, KnownFile
from core.byteranges import ByteRanges
from core.errors import StoreError
from core.types import HASH_BYTES, BlockList, Hash

_log = logging.getLogger("realize.core.reconcile")


@dataclass(slots=True)
class ReconcileReport:
    """What was found.

    Attributes:
        lost: Contents of which something recorded is gone.
        damaged: Contents that were whole and whose bytes are others now, in part or all of them.
        missing: Contents that were whole and whose file is gone though the store was closed in order: after
            a kill that may be an eviction which was under way.
    """

    adopted: int = 0
    removed: int = 0
    resized: int = 0
    rechecked: int = 0
    lost: list[Hash] = field(default_factory=list)
    damaged: list[Hash] = field(default_factory=list)
    missing: list[Hash] = field(default_factory=list)

    def add(self, other: ReconcileReport) -> None:
        """Take in what was found elsewhere."""
        self.adopted += other.adopted
        self.removed += other.removed
        self.resized += other.resized
        self.rechecked += other.rechecked
        self.lost += other.lost
        self.damaged += other.damaged
        self.missing += other.missing

    def __str__(self) -> str:
        """Say what was found, for the log."""
        return (
            f"{self.adopted} adopted, {self.removed} removed, {self.resized} of another size,"
            f" {self.rechecked} checked again, {len(self.lost)} lost, {len(self.damaged)} of them damaged"
        )

    def __bool__(self) -> bool:
        """Say whether anything was found."""
        return bool(self.adopted or self.removed or self.resized or self.rechecked or self.lost)


@dataclass(frozen=True, slots=True)
class Doubts:
    """What the last stop left in doubt, and what new rows get.

    Attributes:
        clean: The store was closed in order.
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
    wrong: list[tuple[BlobRow, BlockList | None]] = field(default_factory=list)
    """Blobs whose bytes are not those of their hash, and the list of the blocks that are there."""


@dataclass(slots=True)
class Survey:
    """What a look at one directory gave: contents whose rows are needed, files without rows, other names."""

    doubtful: list[Hash] = field(default_factory=list)
    orphans: list[Hash] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Say whether anything has to be done."""
        return bool(self.doubtful or self.orphans or self.foreign)


def survey_directory(
    disk: Disk, root_fd: int, first: int, known: Mapping[Hash, KnownFile], doubts: Doubts
) -> Survey:
    """Look which files of hashes that begin with byte ``first`` are those of their rows; worker thread.

    Raises:
        StoreError: the directory cannot be read.
    """
    prefix, flushed, clean = f"{first:02x}", doubts.flushed, doubts.clean
    survey = Survey()
    names = disk.look(root_fd, prefix)
    for content, row in known.items():
        facts = names.pop(content.hex(), None)
        if (
            facts is None
            or row.ctime_ns != facts.ctime_ns
            or row.size != facts.size
            or row.epoch > flushed
            or not facts.regular
            or not (clean or row.disk_bytes == facts.disk_bytes)
        ):
            survey.doubtful.append(content)
    for name in names:
        orphan = _hash_of(name)
        if orphan is not None and name.startswith(prefix):
            survey.orphans.append(orphan)
        else:
            survey.foreign.append(name)
    return survey


def reconcile_directory(
    disk: Disk, root_fd: int, first: int, survey: Survey, rows: Iterable[BlobRow], doubts: Doubts
) -> Findings:
    """Look closer at what a survey found, whose rows are ``rows``; worker thread.

    Raises:
        StoreError: a file cannot be read.
    """
    run = _Directory(disk, root_fd, first, doubts)
    for row in rows:
        run.check(row)
    for content in survey.orphans:
        run.adopt(content)
    for name in survey.foreign:
        run.remove_foreign(name)
    return run.findings


class _Directory:
    def __init__(self, disk: Disk, root_fd: int, first: int, doubts: Doubts) -> None:
        self._disk, self._root_fd, self._doubts = disk, root_fd, doubts
        self._prefix = f"{first:02x}"
        self.findings = Findings(ReconcileReport())

    def _path(self, content: Hash) -> str:
        return f"{self._prefix}/{content.hex()}"

    def remove_foreign(self, name: str) -> None:
        self._remove(f"{self._prefix}/{name}")

    def _remove(self, path: str) -> None:
        try:
            self._disk.unlink(self._root_fd, path)
        except StoreError as error:  # a directory somebody put there
            _log.warning("%s in the blob directory is not ours: %s", os.fsencode(path), error)
        else:
            self.findings.report.removed += 1

    def lose(self, row: BlobRow) -> None:
        self.findings.gone.append(row.hash)
        if row.ranges or row.verified:
            self.findings.report.lost.append(row.hash)
        if row.verified and self._doubts.clean:
            self.findings.report.missing.append(row.hash)

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
                      self._doubts.now_ns, self._doubts.epoch, facts.ctime_ns)  # fmt: skip
        self.findings.changed.append(row)
        if blocks is not None:
            self.findings.lists.append((content, blocks))

    def check(self, row: BlobRow) -> None:
        path = self._path(row.hash)
        try:
            facts = self._disk.facts_at(self._root_fd, path)
        except FileNotFoundError:
            self.lose(row)
            return
        if not facts.regular:
            self.lose(row)
            self._remove(path)
            return
        flushed = row.epoch <= self._doubts.flushed
        if flushed and facts.size == row.size and facts.ctime_ns == row.ctime_ns:
            self.findings.changed.append(replace(row, disk_bytes=facts.disk_bytes))
            return
        if facts.size != row.size:
            self._resize(path, row.size)
        self._doubt(row, path, facts.size)

    def _doubt(self, row: BlobRow, path: str, had_bytes: int) -> None:
        """Take nothing for granted of a file that may not be what it was."""
        found: BlockList | None = None
        right = False
        if row.verified or row.complete:
            self.findings.report.rechecked += 1
            digest, found = self._hash(path, row.size)
            right = digest == row.hash
        facts = self._disk.facts_at(self._root_fd, path)
        row_now = replace(row, disk_bytes=facts.disk_bytes, ctime_ns=facts.ctime_ns)
        if right:
            epoch = 0 if row.epoch <= self._doubts.flushed else self._doubts.epoch
            self.findings.changed.append(replace(row_now, verified=True, epoch=epoch))
        elif row.verified:
            self.findings.report.lost.append(row.hash)
            self.findings.report.damaged.append(row.hash)
            self.findings.wrong.append((row_now, found))
        elif doubted := self._written(row, path, had_bytes):
            self.findings.changed.append(replace(row_now, ranges=ByteRanges(), doubted=doubted))
        else:
            self.lose(row)
            self._remove(path)

    def _written(self, row: BlobRow, path: str, had_bytes: int) -> ByteRanges:
        """Return what may be right of a blob in part: recorded, or written and then the daemon was killed."""
        fd = self._disk.open(self._root_fd, path)
        try:
            written = self._disk.written(fd, row.size)
        finally:
            os.close(fd)
        return written.union(row.ranges).union(row.doubted).intersection(ByteRanges.whole(had_bytes))

    def _resize(self, path: str, size: int) -> None:
        self.findings.report.resized += 1
        fd = self._disk.open(self._root_fd, path)
        try:
            self._disk.truncate(fd, size)
        finally:
            os.close(fd)

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


def what_is_right(row: BlobRow, found: BlockList | None, known: BlockList | None) -> BlobRow | None:
    """Return the row of a blob without its wrong blocks; None if nothing of it is known to be right."""
    if found is None or known is None:
        return None
    right = matching_blocks(found, known, row.size)
    return replace(row, ranges=right, verified=False, doubted=ByteRanges()) if right else None
