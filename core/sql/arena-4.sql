-- Version 4: whether the file of a blob is still the one that was written here.

-- Change time of the file when its ranges were recorded last and nobody had it open for writing, ns since
-- the epoch. Nothing but the kernel can set a change time, so a file with another one was touched by
-- somebody else. 0: being written, or never looked at; at the start that is a doubt.
ALTER TABLE blob ADD COLUMN ctime_ns INTEGER NOT NULL DEFAULT 0;

-- core.byteranges: bytes that were written and checked once, of a file that is in doubt. They cannot be read
-- before each block of them was compared with the block list again.
ALTER TABLE blob ADD COLUMN doubted BLOB NOT NULL DEFAULT x'';
