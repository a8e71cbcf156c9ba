-- Version 5: what is left of deletions once their tombstones are trimmed (docs/decisions/0060-trimming.md), and the
-- ranges of inodes, which the global database may lose.

-- Nodes that show nothing: they go, with their tombstones, once nobody has to be told of them any more.
CREATE TABLE departed (
    node INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,       -- n: waits until every configured peer has acknowledged entry n-1 of our
                                -- history; -1: not numbered yet; 0: has waited, and something kept the node
    at_s INTEGER NOT NULL,      -- wall clock at which it began to show nothing
    look_s INTEGER NOT NULL     -- wall clock before which it is not looked at again, where seq is 0
) STRICT;
CREATE INDEX departed_seq ON departed (seq, look_s);

-- Deletions of paths that have no node any more. INVARIANT: a path has a node or a row here, never both.
CREATE TABLE grave (
    path BLOB PRIMARY KEY,      -- the first 16 bytes of the BLAKE3 of the path
    vector BLOB NOT NULL,       -- of the deletion: merged from all tombstones of the path
    at_s INTEGER NOT NULL       -- wall clock at which it was dug
) STRICT, WITHOUT ROWID;

-- Half-open ranges of inodes that this arena was given; core.inodes.
CREATE TABLE inode_range (
    start INTEGER PRIMARY KEY,
    end INTEGER NOT NULL
) STRICT;

INSERT INTO departed (node, seq, at_s, look_s)
    SELECT id, -1, unixepoch(), 0 FROM node WHERE kind = 0 AND parent <> 0;
INSERT INTO inode_range (start, end)
    WITH RECURSIVE found (start) AS (
        SELECT min(id) FROM node
        UNION ALL SELECT (SELECT min(id) FROM node WHERE id >= found.start + 10000) FROM found WHERE start > 0
    )
    SELECT start, start + 10000 FROM found WHERE start > 0;
