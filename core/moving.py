"""The table ``moving``: real files here that a peer renamed, until they are renamed here too.

Held in memory beside the table; few, and for a short time. Engine thread; changes inside a transaction.
"""

from __future__ import annotations

from core.db import Connection


class MovingRows:
    """Nodes with a real file at an old path, each with the node at its new path."""

    def __init__(self, conn: Connection) -> None:
        """Load the table."""
        self._conn = conn
        self._targets: dict[int, int] = {}
        self._sources: dict[int, int] = {}
        self.changed()

    def changed(self) -> None:
        """Read everything again: a transaction was rolled back."""
        self._targets = dict(self._conn.execute("SELECT node, target FROM moving"))
        self._sources = {target: node for node, target in self._targets.items()}

    def add(self, node: int, target: int) -> None:
        """Note that the file at ``node`` is to become the one at ``target``."""
        self.remove(node)
        source = self._sources.get(target)
        if source is not None:
            self.remove(source)
        self._conn.execute("INSERT INTO moving (node, target) VALUES (?, ?)", (node, target))
        self._targets[node] = target
        self._sources[target] = node

    def remove(self, node: int) -> None:
        """Forget it, if there is something to forget."""
        target = self._targets.pop(node, None)
        if target is not None:
            del self._sources[target]
            self._conn.execute("DELETE FROM moving WHERE node = ?", (node,))

    def target(self, node: int) -> int | None:
        """Return where the file of a node is to go."""
        return self._targets.get(node)

    def source(self, node: int) -> int | None:
        """Return the node whose file is to come to this one."""
        return self._sources.get(node)
