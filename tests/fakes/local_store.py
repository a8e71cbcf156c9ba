"""A `core.ports.LocalStore` in memory, for tests of the index.

It must behave as the real one: both pass `tests.core.local_store_contract`. Besides the port it
keeps a log of what was announced, for tests that count changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import trio

from core.markattr import parse
from core.paths import join, split
from core.ports import Found, Hashed, LocalRow, Marked, Unhashed
from core.types import BlockList, Hash, Kind, RelPath


@dataclass(slots=True)
class Stored:
    """One real local entry."""

    row: LocalRow
    hash: Hash | None
    number: int


class MemoryStore:
    """Entries by directory and name. ``log`` lists ``(what, path)`` of everything that changed."""

    def __init__(self) -> None:
        self.directories: dict[RelPath, dict[bytes, Stored]] = {}
        self.blocks: dict[Hash, BlockList] = {}
        self.log: list[tuple[str, RelPath]] = []
        self.marks: dict[RelPath, bytes] = {}
        self._scanned_ns = 0
        self._files = 0
        self._next_number = 1
        self._datadir: tuple[int, int] | None = None
        self._changed = trio.Event()

    # -- the port

    def local_children(self, directory: RelPath) -> dict[bytes, LocalRow]:
        return {
            name: stored.row._replace(marked=join(directory, name) in self.marks)
            for name, stored in self.directories.get(directory, {}).items()
        }

    def local_row(self, path: RelPath) -> LocalRow | None:
        stored = self.stored(path)
        return stored.row._replace(marked=path in self.marks) if stored else None

    def left_behind(self) -> list[RelPath]:
        gone = [path for path in self.directories if path and self.stored(path) is None]
        return [RelPath(join(path, name)) for path in gone for name in self.directories[path]]

    def record(self, found: Sequence[Found]) -> None:
        for item in found:
            self._record(item)
        self._tell()

    def renamed(self, found: Found, *, listed: bool = False) -> bool:
        old, new = found.hash_from, join(found.directory, found.name)
        stored = self.stored(old) if old else None
        if old is None or stored is None or (stored.row.kind, stored.row.ino) != (found.kind, found.ino):
            return False
        row = stored.row
        if row.kind is Kind.FILE and (row.size, row.mtime_ns) != (found.size, found.mtime_ns):
            return False
        if old != new:
            self._move(old, new, listed=listed)
            moved = self.stored(new)
            assert moved is not None
            moved.row = moved.row._replace(mode=found.mode, mtime_ns=found.mtime_ns, unreadable=False)
            self.log.append(("renamed", new))
        self._tell()
        return True

    def _move(self, old: RelPath, new: RelPath, *, listed: bool) -> None:
        stored = self.stored(old)
        assert stored is not None
        if stored.row.kind is Kind.DIR:
            for name, child in list(self.directories.get(old, {}).items()):
                there = self.stored(join(new, name))
                if not listed or (there is not None and there.row.ino == child.row.ino):
                    self._move(join(old, name), join(new, name), listed=listed)
        elif self.stored(new) is not None:
            self._remove(new)
        directory, name = split(old)
        if not self.directories.get(old):
            self.directories.pop(old, None)
        del self.directories[directory][name]
        directory, name = split(new)
        self.directories.setdefault(directory, {})[name] = stored
        if old in self.marks:
            self.marks[new] = self.marks.pop(old)

    def remove(self, paths: Sequence[RelPath]) -> None:
        for path in paths:
            if self.stored(path) is not None:
                self._remove(path)
                self.log.append(("removed", path))
        self._tell()

    def hashed(self, results: Sequence[Hashed]) -> None:
        for result in results:
            stored = self.stored(result.path)
            if stored is None or stored.row.kind is not Kind.FILE:
                continue
            row = stored.row
            if (row.size, row.mtime_ns, row.ino) != (result.size, result.mtime_ns, result.ino):
                continue
            stored.row = row._replace(hashed=True, unreadable=False)
            if stored.hash != result.hash:
                stored.hash = result.hash
                self.log.append(("hashed", result.path))
            if result.blocks is not None:
                self.blocks[result.hash] = result.blocks
        self._tell()

    def unreadable(self, paths: Sequence[RelPath]) -> None:
        for path in paths:
            stored = self.stored(path)
            if stored is not None and not stored.row.unreadable:
                stored.row = stored.row._replace(unreadable=True)
                self.log.append(("unreadable", path))
        self._tell()

    def unhashed(self, after: bytes | None, limit: int) -> list[Unhashed]:
        start = int(after) if after else 0
        rows = [
            (stored.number, join(directory, name), stored.row)
            for directory, children in self.directories.items()
            for name, stored in children.items()
            if stored.number > start
            and stored.row.kind is Kind.FILE
            and not stored.row.hashed
            and not stored.row.unreadable
        ]
        rows.sort()
        return [
            Unhashed(path, row.size, row.mtime_ns, row.ino, str(number).encode())
            for number, path, row in rows[:limit]
        ]

    def local_file_count(self) -> int:
        return self._files

    def marked(self, found: Sequence[Marked]) -> list[RelPath]:
        unknown: list[RelPath] = []
        for path, ino, value in found:
            stored = self.stored(path) if path else None
            if path and (stored is None or stored.row.ino != ino):
                continue
            if value and parse(value) is None:
                unknown.append(path)
            elif value:
                self.marks[path] = value.strip()
            else:
                self.marks.pop(path, None)
        self._tell()
        return unknown

    def scanned_ns(self) -> int:
        return self._scanned_ns

    def set_scanned_ns(self, at_ns: int) -> None:
        self._scanned_ns = at_ns

    def datadir_id(self) -> tuple[int, int] | None:
        return self._datadir

    def set_datadir_id(self, device: int, ino: int) -> None:
        self._datadir = (device, ino)

    # -- for tests

    def stored(self, path: RelPath | bytes) -> Stored | None:
        directory, name = split(path)
        return self.directories.get(directory, {}).get(name)

    def hash_of(self, path: bytes) -> Hash | None:
        stored = self.stored(path)
        return stored.hash if stored else None

    def paths(self) -> set[bytes]:
        return {join(at, name) for at, children in self.directories.items() for name in children}

    def changes(self, path: bytes) -> list[str]:
        """Return what happened to one path, in order."""
        return [what for what, at in self.log if at == path]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on the store holds; checked after each change."""
        while not condition():
            await self._changed.wait()

    # -- inside

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _record(self, item: Found) -> None:
        path = join(item.directory, item.name)
        old = self.stored(path)
        row = LocalRow(item.kind, item.size, item.mtime_ns, item.mode, item.ino, False, False, item.target)
        if old is None:
            known = self._origin_hash(item)
            self._put(item, Stored(row._replace(hashed=known is not None), known, self._number()))
            self.log.append(("added", path))
            return
        if old.row._replace(hashed=False, unreadable=False) == row:
            old.row = old.row._replace(unreadable=False)
            if old.hash is None and (known := self._origin_hash(item)) is not None:
                old.row, old.hash = row._replace(hashed=True), known
            return
        same = item.same_content and old.row.kind is item.kind and old.row.size == item.size
        known = old.hash if same else self._origin_hash(item)
        self._put(item, replace(old, row=row._replace(hashed=known is not None), hash=known))
        self.log.append(("meta" if same else "replaced", path))

    def _number(self) -> int:
        self._next_number += 1
        return self._next_number

    def _origin_hash(self, item: Found) -> Hash | None:
        origin = self.stored(item.hash_from) if item.hash_from else None
        if origin is None:
            return None
        row = origin.row
        same = (row.ino, row.size, row.mtime_ns) == (item.ino, item.size, item.mtime_ns)
        return origin.hash if same else None

    def _put(self, item: Found, stored: Stored) -> None:
        children = self.directories.setdefault(item.directory, {})
        old = children.get(item.name)
        self._files += (item.kind is Kind.FILE) - (old is not None and old.row.kind is Kind.FILE)
        children[item.name] = stored

    def _remove(self, path: RelPath) -> None:
        for name in list(self.directories.get(path, {})):
            self._remove(join(path, name))
        self.directories.pop(path, None)
        directory, name = split(path)
        stored = self.directories[directory].pop(name)
        self.marks.pop(path, None)
        self._files -= stored.row.kind is Kind.FILE
