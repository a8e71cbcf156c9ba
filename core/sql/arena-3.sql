-- Marks as the datadir's xattrs say them, and renames by peers that are to be carried out here.

-- The value of `user.realize.mark` of a real path when it was last read or written. What differs from it on
-- disk was set by a user; where table `mark` differs from it, the xattr is still to be written.
CREATE TABLE mark_file (
    node INTEGER PRIMARY KEY,
    ino INTEGER NOT NULL,       -- inode number of the file that had it: a new file in its place has none
    value TEXT NOT NULL         -- never empty
) STRICT;

-- Real files here that a peer renamed: churten renames them instead of deleting and fetching.
CREATE TABLE moving (
    node INTEGER PRIMARY KEY,   -- at the old path, with a real local entry
    target INTEGER NOT NULL     -- node at the new path
) STRICT;
CREATE INDEX moving_target ON moving (target);
