-- The global database of a host (spec 4 §Databases): inode ranges, arena roots, peers, settings.
-- One daemon writes; the mount thread reads.

CREATE TABLE inode_range (
    last INTEGER PRIMARY KEY,   -- last inode of the range; it begins after the row before it
    owner TEXT NOT NULL         -- arena name; '' for the global space
) STRICT;

CREATE TABLE directory (
    id INTEGER PRIMARY KEY,     -- inode, from the global range or, for an arena root, from the arena's
    parent INTEGER NOT NULL,    -- inode of the directory above; 1 is the root of the mount
    name BLOB NOT NULL,         -- one component of an arena's name
    arena TEXT,                 -- the arena whose root this is; NULL for a directory above arenas
    UNIQUE (parent, name)
) STRICT;

CREATE TABLE peer (
    name TEXT PRIMARY KEY,      -- name in the config
    key BLOB NOT NULL,          -- 8 bytes, core.types.PeerKey
    fingerprint TEXT NOT NULL,  -- of the public key, as shown to people
    last_seen_ns INTEGER,       -- wall clock of the last moment it was connected; NULL: never
    disabled INTEGER NOT NULL   -- 1: the user disconnected it
) STRICT;

CREATE TABLE setting (
    key TEXT PRIMARY KEY,       -- 'churten': 'running' | 'stopped'; 'inode_next', 'inode_end' of the global space
    value TEXT NOT NULL
) STRICT;
