"""Local changes of an arena: what the index of the datadir found, written into the cache.

Implements `core.ports.LocalStore`. Every change makes a version of this host and an entry of
history; a hash that follows is an update of the same version (spec 4 §Unhashed). Engine thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from core.cache import ArenaCache
from core.choice import LOCAL_PEER, EntryRow, Flag, tombstone
from core.events import FileChange, FileChanged, FilesChanged
from core.history import Op
from core.markattr import parse
from core.marking import set_mark
from core.paths import join, split
from core.ports import Found, Hashed, LocalRow, Marked, Unhashed
from core.renames import Renamer
from core.types import BlockList, Hash, Holding, Inode, Kind, RelPath
from core.versions import RECORD_BYTES

_EVENTS_PER_BATCH = 100
"""LIMIT: changes of single files that are worth an event each."""

_INSERT_NODE = (
    "INSERT INTO node (id, parent, name, kind, size, mtime_ns, mode, hash, vector, target, local, flags)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0)"
)
_INSERT_ENTRY = (
    "INSERT OR REPLACE INTO entry (node, peer, holding, kind, size, mtime_ns, mode, hash, vector,"
    " target, ino, stamp) VALUES (?, 0, 1, ?, ?, ?, ?, ?, ?, ?, ?, 0)"
)


class LocalEntries:
    """The local side of an arena's cache; a `core.ports.LocalStore`."""

    def __init__(self, cache: ArenaCache) -> None:
        """Write into ``cache``."""
        self._cache = cache
        self._befores: dict[int, bytes] = {}
        """What files had before they changed, until their new hash is told with it."""
        self._renamer = Renamer(cache)

    # -- reading

    def local_children(self, directory: RelPath) -> dict[bytes, LocalRow]:
        """See `LocalStore.local_children`."""
        parent = self._cache.tree.find(directory)
        if parent is None:
            return {}
        rows = self._cache.conn.execute(
            "SELECT n.name, e.kind, e.size, e.mtime_ns, e.mode, e.ino, e.hash IS NOT NULL, n.flags, e.target,"
            " n.id FROM node n JOIN entry e ON e.node = n.id AND e.peer = 0 AND e.holding = 1"
            " WHERE n.parent = ?",
            (parent,),
        )
        marks = self._cache.marks
        if not marks.any_files():
            return {row[0]: _local_row(row[1:-1]) for row in rows}
        return {row[0]: _local_row(row[1:-1])._replace(marked=marks.concerns(row[-1])) for row in rows}

    def local_row(self, path: RelPath) -> LocalRow | None:
        """See `LocalStore.local_row`."""
        node = self._cache.tree.find(path)
        if node is None:
            return None
        row = self._cache.conn.execute(
            "SELECT e.kind, e.size, e.mtime_ns, e.mode, e.ino, e.hash IS NOT NULL, n.flags, e.target"
            " FROM node n JOIN entry e ON e.node = n.id AND e.peer = 0 AND e.holding = 1"
            " WHERE n.id = ?",
            (node,),
        ).fetchone()
        return _local_row(row)._replace(marked=self._cache.marks.concerns(node)) if row else None

    def local_file_count(self) -> int:
        """See `LocalStore.local_file_count`."""
        row: Any = self._cache.conn.execute(
            "SELECT count(*) FROM entry e WHERE e.peer = 0 AND e.holding = 1 AND e.kind = 1"
        ).fetchone()
        return int(row[0])

    def left_behind(self) -> list[RelPath]:
        """See `LocalStore.left_behind`."""
        # The directory first (`CROSS JOIN`): few are deleted, and many files are real.
        rows: list[Any] = self._cache.conn.execute(
            "SELECT n.id FROM entry d CROSS JOIN node n ON n.parent = d.node"
            " JOIN entry e ON e.node = n.id AND e.peer = 0 AND e.holding = 1"
            " WHERE d.peer = 0 AND d.holding = 0"
        ).fetchall()
        return [self._cache.tree.path(node) for (node,) in rows]

    def unhashed(self, after: bytes | None, limit: int) -> list[Unhashed]:
        """See `LocalStore.unhashed`; the cursor is the node."""
        start = int.from_bytes(after, "big") if after else 0
        rows: list[Any] = self._cache.conn.execute(
            "SELECT e.node, e.size, e.mtime_ns, e.ino FROM entry e JOIN node n ON n.id = e.node"
            " WHERE e.peer = 0 AND e.holding = 1 AND e.kind = 1 AND e.hash IS NULL AND e.node > ?"
            " AND n.flags & ? = 0 ORDER BY e.node LIMIT ?",
            (start, int(Flag.UNREADABLE), limit),
        ).fetchall()
        path = self._cache.tree.path
        return [
            Unhashed(path(node), size, mtime_ns, ino, int(node).to_bytes(8, "big"))
            for node, size, mtime_ns, ino in rows
        ]

    def scanned_ns(self) -> int:
        """See `LocalStore.scanned_ns`."""
        row: Any = self._cache.conn.execute("SELECT value FROM meta WHERE key = 'scanned_ns'").fetchone()
        return int(row[0]) if row else 0

    def set_scanned_ns(self, at_ns: int) -> None:
        """See `LocalStore.set_scanned_ns`."""
        with self._cache.write():
            self._cache.conn.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES ('scanned_ns', ?)", (at_ns,)
            )

    def datadir_id(self) -> tuple[int, int] | None:
        """See `LocalStore.datadir_id`."""
        rows: dict[Any, Any] = dict(
            self._cache.conn.execute(
                "SELECT key, value FROM meta WHERE key IN ('datadir_device', 'datadir_ino')"
            )
        )
        return (int(rows["datadir_device"]), int(rows["datadir_ino"])) if len(rows) == 2 else None

    def set_datadir_id(self, device: int, ino: int) -> None:
        """See `LocalStore.set_datadir_id`."""
        with self._cache.write():
            self._cache.conn.executemany(
                "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)",
                [("datadir_device", device), ("datadir_ino", ino)],
            )

    # -- writing

    def renamed(self, found: Found, *, listed: bool = False) -> bool:
        """See `LocalStore.renamed`."""
        with self._cache.write():
            done = self._renamer.rename(found, listed=listed)
            if done and found.kind == Kind.FILE:
                node = self._cache.tree.find(join(found.directory, found.name))
                if node is not None:
                    self._clear_unreadable(node)  # it may have been made readable on the way
        return done

    def record(self, found: Sequence[Found]) -> None:
        """See `LocalStore.record`."""
        quiet = len(found) > _EVENTS_PER_BATCH
        with self._cache.write():
            for directory, group in groupby(found, key=lambda item: item.directory):
                self._record_group(directory, list(group), quiet)

    def _record_group(self, directory: RelPath, found: list[Found], quiet: bool) -> None:
        cache = self._cache
        parent = cache.tree.ensure_dir(directory)
        cache.show_directory(parent)
        select = "SELECT id FROM node WHERE parent = ? AND name = ?"
        nodes: list[tuple[object, ...]] = []
        entries: list[tuple[object, ...]] = []
        first_vector = cache.first_vector()
        for item in found:
            known: Any = cache.conn.execute(select, (parent, item.name)).fetchone()
            if known is None and cache.graves.get(join(directory, item.name)) is not None:
                known = (cache.tree.ensure_child(parent, item.name),)
            if known is not None:
                self._change(Inode(known[0]), item, quiet)
                continue
            node = cache.allocate()
            content = self._moved_hash(item)
            values = (
                int(item.kind),
                item.size,
                item.mtime_ns,
                item.mode,
                content,
                first_vector,
                item.target or None,
            )
            nodes.append((node, parent, item.name, *values))
            entries.append((node, *values, item.ino))
            cache.history.append(node, Op.ADD)
            if not quiet:
                self._event(item, "added", None, content)
        if nodes:
            cache.conn.executemany(_INSERT_NODE, nodes)
            cache.conn.executemany(_INSERT_ENTRY, entries)
            cache.changes.listings.add(parent)
            cache.changes.touched.add(parent)

    def _moved_hash(self, item: Found) -> bytes | None:
        if item.hash_from is None:
            return None
        node = self._cache.tree.find(item.hash_from)
        if node is None:
            return None
        row: Any = self._cache.conn.execute(
            "SELECT hash"
            " FROM entry e"
            " WHERE node = ? AND e.peer = 0 AND e.holding = 1 AND size = ? AND mtime_ns = ? AND ino = ?",
            (node, item.size, item.mtime_ns, item.ino),
        ).fetchone()
        return row[0] if row else None

    def _take_moved_hash(self, node: Inode, item: Found) -> None:
        """Take the hash from where a file was moved, when that is found out after it was recorded."""
        content = self._moved_hash(item)
        if content is not None:
            parent = self._cache.tree.parent_and_name(node)[0]
            path = join(item.directory, item.name)
            found = Hashed(path, item.size, item.mtime_ns, item.ino, Hash(content), None)
            self._set_hash(node, parent, None, 2, found)
            self._tell_hashed("added", [(path, found.hash, b"")])

    def _change(self, node: Inode, item: Found, quiet: bool) -> None:
        cache = self._cache
        row: Any = cache.conn.execute(
            "SELECT holding, kind, size, mtime_ns, mode, hash, target, ino FROM entry"
            " WHERE node = ? AND peer = 0",
            (node,),
        ).fetchone()
        real = row is not None and row[0] == Holding.REAL
        target = item.target or None
        if (
            real
            and row[1:5] == (item.kind, item.size, item.mtime_ns, item.mode)
            and row[6:] == (target, item.ino)
        ):
            self._clear_unreadable(node)
            if row[5] is None:
                self._take_moved_hash(node, item)
            return
        same_content = real and item.same_content and row[1] == item.kind and row[2] == item.size
        content = row[5] if same_content else self._moved_hash(item)
        if real and item.kind == Kind.DIR and row[1] == Kind.DIR and row[4] == item.mode:
            # A directory's own times and inode number are nobody's change.
            cache.conn.execute("UPDATE entry SET ino = ? WHERE node = ? AND peer = 0", (item.ino, node))
            return
        # A directory that comes back, with a file in it say, is no conflict with its deletion.
        vector = cache.next_vector(node, over_deletions=item.kind == Kind.DIR)
        if row is not None and row[0] == Holding.CACHED and content != row[5]:
            cache.cached.make_way(node)
        entry = EntryRow(
            LOCAL_PEER,
            int(Holding.REAL),
            int(item.kind),
            item.size,
            item.mtime_ns,
            item.mode,
            content,
            vector,
            target,
        )
        if content is None and real and row[5] is not None:
            self._befores[node] = row[5]
        cache.put_entry(node, entry, ino=item.ino)
        cache.refresh(node)
        self._clear_unreadable(node)
        op = Op.META if same_content else Op.REPLACE if real else Op.ADD
        cache.history.append(node, op)
        if not quiet:
            what: FileChange = "meta" if same_content else "replaced" if real else "added"
            self._event(item, what, row[5] if real else None, content)

    def _event(self, item: Found, what: FileChange, before: bytes | None, after: bytes | None) -> None:
        """Tell of a change now; that of a file's content is told with its hash for the record."""
        self._cache.emit(
            FileChanged(
                arena=self._cache.name,
                path=join(item.directory, item.name),
                what=what,
                cause="" if item.kind == Kind.FILE and after is None else "user",
                before=before,
                after=after,
            )
        )

    def _clear_unreadable(self, node: int) -> None:
        self._cache.conn.execute(
            "UPDATE node SET flags = flags & ~? WHERE id = ? AND flags & ? <> 0",
            (int(Flag.UNREADABLE), node, int(Flag.UNREADABLE)),
        )

    def remove(self, paths: Sequence[RelPath]) -> None:
        """See `LocalStore.remove`."""
        cache = self._cache
        with cache.write():
            gone: list[tuple[RelPath, bytes]] = []
            for path in paths:
                node = cache.tree.find(path)
                if node is None:
                    continue
                for below in reversed(going := self._real_below(node)):
                    local = cache.local_entry(below)
                    before = (local.hash if local is not None else None) or self._befores.pop(below, b"")
                    gone.append((cache.tree.path(below), before))
                for below in going:
                    self._tombstone(below)
                cache.mark_left(cache.tree.parent_and_name(node)[0])
            if gone:
                cache.emit(
                    FilesChanged(
                        arena=cache.name,
                        what="removed",
                        paths=tuple(path for path, _ in gone),
                        befores=tuple(before for _, before in gone),
                        cause="user",
                    )
                )

    def _real_below(self, node: int) -> list[int]:
        """Return the node and all below it that are real here, the deepest first."""
        rows: Iterable[Any] = self._cache.conn.execute(
            "WITH RECURSIVE below (id, depth) AS (SELECT ?, 0 UNION ALL"
            " SELECT n.id, b.depth + 1 FROM below b JOIN node n ON n.parent = b.id)"
            " SELECT b.id"
            " FROM below b JOIN entry e ON e.node = b.id AND e.peer = 0 AND e.holding = 1"
            " ORDER BY b.depth DESC",
            (node,),
        )
        return [row[0] for row in rows]

    def _tombstone(self, node: int) -> None:
        cache = self._cache
        vector = cache.next_vector(node)
        cache.put_entry(node, tombstone(vector))
        cache.refresh(node)
        cache.history.append(node, Op.REMOVE)

    def hashed(self, results: Sequence[Hashed]) -> None:
        """See `LocalStore.hashed`."""
        cache = self._cache
        told: dict[FileChange, list[tuple[RelPath, Hash, bytes]]] = {}
        with cache.write():
            for result in results:
                directory, name = split(result.path)
                parent = cache.tree.ensure_dir(directory)
                row: Any = cache.conn.execute(
                    "SELECT n.id, e.hash, (SELECT count(*) FROM entry o WHERE o.node = n.id) + (n.kind <> 1),"
                    " e.vector"
                    " FROM node n JOIN entry e ON e.node = n.id AND e.peer = 0 AND e.holding = 1"
                    " WHERE n.parent = ? AND n.name = ? AND e.size = ? AND e.mtime_ns = ? AND e.ino = ?",
                    (parent, name, result.size, result.mtime_ns, result.ino),
                ).fetchone()
                if row is None:
                    continue
                self._set_hash(row[0], parent, row[1], row[2], result)
                if row[1] is None:
                    before = self._befores.pop(row[0], b"")
                    # One record: nobody else ever changed it, nor, as far as is known, did this host.
                    new = not before and len(row[3]) == RECORD_BYTES
                    told.setdefault("added" if new else "replaced", []).append(
                        (result.path, result.hash, before)
                    )
            for what, items in told.items():
                self._tell_hashed(what, items)

    def _tell_hashed(self, what: FileChange, items: Sequence[tuple[RelPath, Hash, bytes]]) -> None:
        """Tell for the record what the changes of files came to."""
        paths, contents, befores = zip(*items, strict=True)
        self._cache.emit(
            FilesChanged(
                arena=self._cache.name,
                what=what,
                paths=paths,
                contents=contents,
                befores=befores if any(befores) else (),
                cause="user",
            )
        )

    def _set_hash(self, node: int, parent: int, known: bytes | None, entries: int, result: Hashed) -> None:
        cache = self._cache
        if result.blocks is not None:
            self._put_blocks(result.hash, result.blocks)
        if known == result.hash:
            self._clear_unreadable(node)
            return
        cache.conn.execute("UPDATE entry SET hash = ? WHERE node = ? AND peer = 0", (result.hash, node))
        if entries == 1:
            cache.conn.execute("UPDATE node SET hash = ?, flags = 0 WHERE id = ?", (result.hash, node))
            cache.changes.touched.add(parent)
        else:
            cache.refresh(node)
            self._clear_unreadable(node)
            cache.mark_dirty([node])
        cache.history.append(node, Op.REPLACE)

    def _put_blocks(self, content: Hash, blocks: BlockList) -> None:
        self._cache.conn.execute(
            "INSERT OR REPLACE INTO block_list (hash, block_bytes, hashes) VALUES (?, ?, ?)",
            (content, blocks.block_bytes, blocks.hashes),
        )

    def marked(self, found: Sequence[Marked]) -> list[RelPath]:
        """See `LocalStore.marked`."""
        cache, marks = self._cache, self._cache.marks
        unknown: list[RelPath] = []
        if not marks.any_files() and not any(item.value for item in found):
            return unknown
        with cache.write():
            for item in found:
                node = self._marked_node(item)
                if node is None:
                    continue
                ino = item.ino if node != cache.root else 0
                known, explicit = marks.file_value(node, ino), marks.explicit(node)
                mark = parse(item.value)
                if item.value.strip() == known:
                    if explicit != mark:
                        marks.unwritten.add(node)
                        cache.changes.nodes.add(node)  # so that the writer hears of it
                elif item.value and mark is None:
                    unknown.append(item.path)
                else:
                    marks.set_file(node, ino, mark.value.encode() if mark else b"")
                    set_mark(cache, node, item.path, mark)
        return unknown

    def _marked_node(self, item: Marked) -> Inode | None:
        node = self._cache.tree.find(item.path)
        if node is None or node == self._cache.root:
            return node
        row: Any = self._cache.conn.execute(
            "SELECT 1 FROM entry e WHERE e.node = ? AND e.peer = 0 AND e.holding = 1 AND e.ino = ?",
            (node, item.ino),
        ).fetchone()
        return node if row is not None else None

    def unreadable(self, paths: Sequence[RelPath]) -> None:
        """See `LocalStore.unreadable`."""
        cache = self._cache
        with cache.write() as changes:
            for path in paths:
                node = cache.tree.find(path)
                if node is not None:
                    cache.conn.execute(
                        "UPDATE node SET flags = flags | ? WHERE id = ?", (int(Flag.UNREADABLE), node)
                    )
                    changes.touched.add(cache.tree.parent_and_name(node)[0])

    def unreadable_files(self) -> int:
        """Return how many files of the datadir are known to be unreadable."""
        row: Any = self._cache.conn.execute(
            "SELECT count(*) FROM node WHERE flags <> 0 AND flags & ? <> 0", (_UNREADABLE,)
        ).fetchone()
        return int(row[0])


_KINDS = tuple(Kind)
_UNREADABLE = int(Flag.UNREADABLE)


def _local_row(row: Any) -> LocalRow:  # noqa: ANN401 - a row of SQLite
    # One for each file of a scan: enumerations are looked up, not called, which took half of the time.
    kind, size, mtime_ns, mode, ino, hashed, flags, target, *_ = row
    unreadable = flags & _UNREADABLE != 0
    return LocalRow(_KINDS[kind], size, mtime_ns, mode, ino, hashed != 0, unreadable, target or b"")
