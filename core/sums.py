"""Sums over subtrees of an arena: what a directory holds, what a mark covers.

Read-only statements for a worker's connection; they walk a subtree and take about a microsecond a node.
"""

from __future__ import annotations

from typing import Any

from core.api import Usage
from core.db import Connection

USAGE = """
WITH RECURSIVE below (id) AS (
    SELECT :node UNION ALL SELECT n.id FROM below b JOIN node n ON n.parent = b.id WHERE n.kind <> 0
)
SELECT count(*), coalesce(sum(n.size), 0),
    coalesce(sum(CASE WHEN n.local > 0 THEN n.size ELSE min(n.size, coalesce(b.disk_bytes, 0)) END), 0)
FROM below JOIN node n ON n.id = below.id LEFT JOIN blob b ON n.local = 0 AND b.hash = n.hash
WHERE n.kind = 1
"""

CACHED = """
WITH RECURSIVE below (id) AS (
    SELECT :node UNION ALL SELECT n.id FROM below b JOIN node n ON n.parent = b.id WHERE n.kind <> 0
)
SELECT coalesce(sum(b.disk_bytes), 0) FROM below JOIN node n ON n.id = below.id
JOIN blob b ON b.hash = n.hash WHERE n.kind = 1 AND n.local <> 1
"""

FILES = """
WITH RECURSIVE below (id) AS (
    SELECT :node UNION ALL SELECT n.id FROM below b JOIN node n ON n.parent = b.id WHERE n.kind <> 0
)
SELECT n.id, n.size FROM below JOIN node n ON n.id = below.id WHERE n.kind = 1
"""

STATEMENTS = (USAGE, CACHED, FILES)
"""All statements of this module, for the test that none of them scans a table."""


def usage(conn: Connection, node: int) -> Usage:
    """Return the number of files at and below a node, their bytes, and the bytes held here."""
    row: Any = conn.execute(USAGE, {"node": node}).fetchone()
    return Usage(files=row[0], bytes=row[1], held=row[2])


def cached_bytes(conn: Connection, node: int) -> int:
    """Return the bytes that cached content at and below a node takes on the disk."""
    row: Any = conn.execute(CACHED, {"node": node}).fetchone()
    return int(row[0])


def files_below(conn: Connection, node: int) -> list[tuple[int, int]]:
    """Return ``(node, size)`` of the files at and below a node, in the order of the tree."""
    rows: list[Any] = conn.execute(FILES, {"node": node}).fetchall()
    return [(row[0], row[1]) for row in rows]
