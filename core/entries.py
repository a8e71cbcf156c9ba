"""Entries as users see them, made from a reader's rows; and the fuzzy search over an arena.

Runs in a worker on a `TreeReader` that only one worker uses at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.api import ArenaPath, Entry, Page
from core.arena_reader import ArenaReader, NodeRow
from core.choice import Flag
from core.errors import PathNotFoundError
from core.locate import nearest
from core.paths import display, join, split, to_str
from core.reader import TreeReader
from core.types import Kind, RelPath

_SEARCH_ROWS = 5000


class EntryReader:
    """Reads entries of all arenas."""

    def __init__(self, tree: TreeReader) -> None:
        """Read through ``tree``, which it owns."""
        self.tree = tree

    def lookup(self, at: ArenaPath) -> Entry:
        """Return the entry of a path.

        Raises:
            PathNotFoundError: there is nothing; the hint offers the nearest names of its directory.
        """
        reader = self.tree.arena(at.arena)
        node = reader.find(RelPath(at.path))
        if node is None or node.kind == Kind.NONE:
            raise self.not_found(at)
        return self._entry(at.arena, reader, node, at.path)

    def not_found(self, at: ArenaPath) -> PathNotFoundError:
        """Return the error for a path that is not there."""
        reader = self.tree.arena(at.arena)
        parent_path, name = split(at.path)
        parent = reader.find(parent_path)
        hint = ""
        if parent is not None and parent.kind == Kind.DIR:
            names = [to_str(row.name) for row in reader.children(parent.id, b"", 2000)]
            hint = nearest(to_str(name), names)
        return PathNotFoundError(f"{display(at.arena)}/{display(at.path)} does not exist", hint=hint)

    def listdir(self, at: ArenaPath, after: bytes, limit: int) -> Page:
        """Return a page of a directory; a page of one for what is no directory.

        Raises:
            PathNotFoundError: there is nothing.
        """
        reader = self.tree.arena(at.arena)
        node = reader.find(RelPath(at.path))
        if node is None or node.kind == Kind.NONE:
            raise self.not_found(at)
        if node.kind != Kind.DIR:
            return Page((self._entry(at.arena, reader, node, at.path),), more=False)
        rows = reader.children(node.id, after, limit + 1)
        entries = tuple(self._entry(at.arena, reader, row, join(at.path, row.name)) for row in rows[:limit])
        return Page(entries, more=len(rows) > limit)

    def _entry(self, arena: str, reader: ArenaReader, node: NodeRow, path: bytes) -> Entry:
        mark = reader.mark(node.id)
        return Entry(
            arena=arena,
            path=path,
            kind=Kind(node.kind),
            size=node.size if node.kind != Kind.SYMLINK else len(node.target or b""),
            mtime_ns=node.mtime_ns,
            mode=node.mode,
            hash=node.hash,
            state=reader.state(node),
            mark=mark.mark,
            mark_explicit=mark.origin == node.id,
            holders=tuple(self.tree.peer_name(key) for key in reader.holders(node)),
            conflict=bool(node.flags & Flag.CONFLICT),
            held=reader.held_bytes(node),
            target=node.target or b"",
        )

    def search(self, query: str, arena: str | None, limit: int) -> tuple[Entry, ...]:
        """Return entries whose name has the query's characters in order, the closest first.

        Words but the last must be found in the same way in the path before the name.
        """
        words = query.lower().replace("/", " ").split()
        if not words:
            return ()
        found: list[tuple[tuple[int, int, bytes], Entry]] = []
        for config in self.tree.arenas:
            if arena is not None and config.name != arena:
                continue
            reader = self.tree.arena(config.name)
            for score, node, path in _matches(reader, words, limit):
                found.append((score, self._entry(config.name, reader, node, path)))
        found.sort(key=lambda item: item[0])
        return tuple(entry for _, entry in found[:limit])


def _matches(
    reader: ArenaReader, words: list[str], limit: int
) -> Iterator[tuple[tuple[int, int, bytes], NodeRow, bytes]]:
    *above, last = words
    ranked = sorted((_score(name, last), node) for node, name in reader.names_like(last, _SEARCH_ROWS))
    count = 0
    for score, inode in ranked:
        path = reader.path(inode)
        directory = to_str(split(path)[0]).lower()
        if not all(_is_subsequence(word, directory) for word in above):
            continue
        node = reader.node(inode)
        if node is not None:
            yield (*score, path), node, path
            count += 1
        if count >= limit:
            return


def _score(name: bytes, word: str) -> tuple[int, int]:
    text = to_str(name).lower()
    at = text.find(word)
    if at < 0:
        return 3, len(text)
    return (0 if at == 0 and len(word) == len(text) else 1 if at == 0 else 2), len(text)


def _is_subsequence(word: str, text: str) -> bool:
    rest: Any = iter(text)
    return all(char in rest for char in word)
