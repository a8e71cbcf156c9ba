"""What is known of the block lists of contents that readers want parts of: entries, and who gave them.

Entries are asked for in groups, as they are needed (spec 4 §Blobs). Engine thread; in memory only.
"""

from __future__ import annotations

from collections import OrderedDict

from core.blobrows import entries_of
from core.download import FetchParts
from core.ports import PeerLink
from core.streams import ask_blocks
from core.types import HASH_BYTES, Hash, PeerKey, block_bytes_for

ENTRIES = 256
"""LIMIT: entries of a block list asked for at once: 8 KiB for 32 MiB of content."""
_LISTS = 32
"""LIMIT: contents whose entries are kept in memory, at most 256 KiB each."""


class Entries:
    """What is known of the block list of one content, and who said so."""

    def __init__(self, content: Hash, size: int, known: bytes | None) -> None:
        """Know what ``known``, the hashes of a list of ours, says; None: nothing."""
        self.block_bytes = block_bytes_for(size)
        self.count = max(1, entries_of(size))
        self.hashes = bytearray(self.count * HASH_BYTES)
        self.givers: dict[int, PeerKey | None] = {}
        if not entries_of(size):
            known = bytes(content)
        if known is not None and len(known) == len(self.hashes):
            self.hashes[:] = known
            self.givers = dict.fromkeys(range(-(-self.count // ENTRIES)))

    def missing(self, start: int, end: int) -> list[int]:
        """Return the groups of entries that ``[start, end)`` needs and that are not known."""
        first = start // self.block_bytes // ENTRIES
        last = (end - 1) // self.block_bytes // ENTRIES
        return [group for group in range(first, last + 1) if group not in self.givers]

    def learn(self, group: int, hashes: bytes, giver: PeerKey) -> None:
        """Take over a group of entries."""
        at = group * ENTRIES * HASH_BYTES
        self.hashes[at : at + len(hashes)] = hashes
        self.givers[group] = giver

    def of(self, start: int, end: int) -> list[bytes]:
        """Return the hashes of the blocks of ``[start, end)``; ``start`` is where a block begins."""
        first, last = start // self.block_bytes, -(-end // self.block_bytes)
        return [bytes(self.hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES]) for i in range(first, last)]

    def giver(self, start: int) -> PeerKey | None:
        """Return who gave the hash of the block at ``start``; None: we ourselves."""
        return self.givers.get(start // self.block_bytes // ENTRIES)


class EntryBook:
    """The entries of the contents that were wanted last."""

    def __init__(self, parts: FetchParts) -> None:
        """Know nothing."""
        self._parts = parts
        self._entries: OrderedDict[Hash, Entries] = OrderedDict()

    async def known(self, content: Hash, size: int, start: int, end: int, link: PeerLink) -> Entries:
        """Return the entries of a content, with those of ``[start, end)``: ``link`` is asked for the missing.

        Raises:
            NetError: the holder stalls, fails, or sends something else.
            ChangedError: it does not hold the content any more.
        """
        known = self._entries.get(content)
        if known is None:
            own = self._parts.store.get_blocks(content)
            known = Entries(content, size, None if own is None else own.hashes)
            self._entries[content] = known
            while len(self._entries) > _LISTS:
                self._entries.popitem(last=False)
        self._entries.move_to_end(content)
        for group in known.missing(start, end):
            first = group * ENTRIES
            count = min(ENTRIES, known.count - first)
            blocks = await ask_blocks(
                link, self._parts.arena, content, size, first, count, self._parts.stall_s
            )
            known.learn(group, blocks.hashes, link.key)
        return known

    def distrust(self, content: Hash) -> None:
        """Forget the entries of a content whose blocks fit them and whose whole is wrong."""
        known = self._entries.pop(content, None)
        for giver in set(known.givers.values()) if known is not None else ():
            if giver is not None:
                self._parts.book.convict(content, giver)
