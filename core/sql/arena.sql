-- The database of one arena (spec 4): tree, entries, history, marks, dirty nodes, blobs.
-- Written by the engine thread alone; each reader has a read-only connection of its own.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,       -- 'uuid', 'inode_next', 'inode_end', 'root', 'datadir_device', 'datadir_ino',
                                -- 'clean' (core.blobs), 'left_undone' (core.work)
    value ANY NOT NULL
) STRICT;

-- A path and the version shown for it. Paths are not stored: parent and name give them.
CREATE TABLE node (
    id INTEGER PRIMARY KEY,     -- the inode; never reused
    parent INTEGER NOT NULL,    -- node of the directory; 0 for the arena root
    name BLOB NOT NULL,         -- one component, any bytes but NUL and '/'
    kind INTEGER NOT NULL,      -- core.types.Kind; 0: nothing is shown here (deleted, or marked only)
    size INTEGER NOT NULL,      -- bytes
    mtime_ns INTEGER NOT NULL,  -- since the epoch
    mode INTEGER NOT NULL,      -- permission bits
    hash BLOB,                  -- BLAKE3 of the content; NULL: not a file, or not hashed yet
    vector BLOB NOT NULL,       -- of the shown version; merged where several entries agree
    target BLOB,                -- text of a symlink
    local INTEGER NOT NULL,     -- 0: shown version not whole here; 1: real in the datadir; 2: cached
    flags INTEGER NOT NULL,     -- core.choice.Flag bits: 1 conflict, 2 unreadable, 4 deleted-but-changed
    UNIQUE (parent, name)
) STRICT;

-- Who holds which version of a node: this host (peer 0) and each announcing peer.
CREATE TABLE entry (
    node INTEGER NOT NULL,
    peer INTEGER NOT NULL,      -- 0: this host; else peer.id
    holding INTEGER NOT NULL,   -- core.types.Holding: 0 tombstone, 1 real, 2 cached
    kind INTEGER NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    hash BLOB,
    vector BLOB NOT NULL,
    target BLOB,
    ino INTEGER NOT NULL,       -- inode number in the datadir for a real local entry, or one that was unrealized; else 0
    stamp INTEGER NOT NULL,     -- peer.stamp of the catch-up that listed it last; 0 for local entries
    PRIMARY KEY (node, peer)
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_local_hash ON entry (hash) WHERE peer = 0 AND hash IS NOT NULL;
CREATE INDEX entry_unhashed ON entry (node) WHERE peer = 0 AND holding = 1 AND kind = 1 AND hash IS NULL;

-- Peers known to this arena, and both positions in history.
CREATE TABLE peer (
    id INTEGER PRIMARY KEY,     -- small number used in entry.peer; never 0, never reused
    key BLOB NOT NULL UNIQUE,   -- core.types.PeerKey
    uuid BLOB NOT NULL,         -- the peer's history that we follow; '' before the first batch
    seq INTEGER NOT NULL,       -- how far we have applied it
    stamp INTEGER NOT NULL,     -- generation of the catch-up under way or last completed
    acked_seq INTEGER NOT NULL  -- how far the peer has applied ours
) STRICT;

-- The numbered log of local changes. A message is made from the current state when it is sent.
CREATE TABLE history (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    node INTEGER NOT NULL,
    op INTEGER NOT NULL,        -- core.history.Op
    at_s INTEGER NOT NULL,      -- wall clock, for trimming by age
    moved_from BLOB             -- full old path, for a rename; else NULL
) STRICT;

CREATE TABLE mark (
    node INTEGER PRIMARY KEY,
    mark TEXT NOT NULL          -- 'watch' | 'keep' | 'own'
) STRICT;

-- Nodes whose disk state may not agree with their mark. A job ends only if counter is unchanged.
CREATE TABLE dirty (
    node INTEGER PRIMARY KEY,
    counter INTEGER NOT NULL UNIQUE, -- order; marking dirty again takes the next number
    subtree INTEGER NOT NULL,   -- 1: everything below it is dirty too (expanded by churten in steps)
    attempts INTEGER NOT NULL,  -- failures in a row
    due_ns INTEGER NOT NULL,    -- wall clock before which it is not tried again; 0: now
    reason TEXT NOT NULL        -- why it waits or failed last; '' if it has not
) STRICT;

-- Locally held content by hash. The file is blobs/<first byte, hex>/<hash, hex>.
CREATE TABLE blob (
    hash BLOB PRIMARY KEY,
    size INTEGER NOT NULL,      -- of the whole content, bytes
    ranges BLOB NOT NULL,       -- core.byteranges: written and checked bytes; whole when complete
    verified INTEGER NOT NULL,  -- 1: the whole content was checked against the hash
    area INTEGER NOT NULL,      -- core.blobrows.Area: 0 working, 1 protected, 2 pending removal, 3 frequent
    disk_bytes INTEGER NOT NULL,-- blocks in use on disk, in bytes
    last_use_ns INTEGER NOT NULL, -- wall clock of the last read
    frequency INTEGER NOT NULL, -- uses, halved each generation
    generation INTEGER NOT NULL, -- generation in which frequency was last written
    epoch INTEGER NOT NULL DEFAULT 0 -- flush epoch of the last write; on the disk if 0 or <= meta 'blob_flushed'
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_lru ON blob (area, last_use_ns); -- hash follows: the primary key ends every index

-- BLAKE3 of the blocks of contents of more than one block that are, or were, here.
CREATE TABLE block_list (
    hash BLOB PRIMARY KEY,
    block_bytes INTEGER NOT NULL,
    hashes BLOB NOT NULL        -- 32 bytes a block
) STRICT, WITHOUT ROWID;
