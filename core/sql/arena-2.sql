-- Version 2: what is in the trash by path, and the paths that wait for a decision of the user.

-- Content that was replaced, deleted or found damaged here and is held in the area *pending removal* of the
-- blobs. A row without its blob counts for nothing and is removed at the next start.
CREATE TABLE trash (
    id INTEGER PRIMARY KEY,
    path BLOB NOT NULL,         -- where the content was; of the time it was put here
    hash BLOB NOT NULL,         -- blob.hash
    size INTEGER NOT NULL,      -- bytes
    mtime_ns INTEGER NOT NULL,  -- of the file that it was
    mode INTEGER NOT NULL,      -- permission bits of the file that it was
    at_ns INTEGER NOT NULL,     -- wall clock at which it was put here
    why TEXT NOT NULL,          -- core.trashrows.Reason: 'replaced' | 'deleted' | 'damaged'
    by_peer BLOB,               -- core.types.PeerKey of whose change it was; NULL: not known
    UNIQUE (path, hash)
) STRICT;
CREATE INDEX trash_hash ON trash (hash);

CREATE INDEX node_flagged ON node (flags) WHERE flags <> 0;
