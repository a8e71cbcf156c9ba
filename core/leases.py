"""Giving up durable copies without ever giving up the last one (spec 4 §Jobs, *unrealize*).

A copy is *durable* if it is a real file, or a whole blob that is not evicted. A host gives one up only after
peers have said, since it noted that it does so (`GivingUp`), that they hold theirs of the same path and are
not giving it up themselves (`Lender`). Engine thread.

INVARIANT: while any host had a durable copy of a version, and no user deleted or replaced it, one has. For
suppose all gave theirs up, and take the host that began last: whoever confirmed to it had begun before, so
it was giving up (and refused, or gave way and kept its copy) or had done so (and had nothing to confirm).
Nothing has to be remembered after the answer, and nothing expires.

When two hosts ask each other at once, the one with the lower key goes on and the other gives way.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import trio

from core.blobrows import Area
from core.choice import Flag
from core.disk import open_beneath, open_root
from core.errors import NetError, StoreError
from core.paths import split
from core.placing import Identity
from core.ports import PeerLink
from core.types import Hash, Holding, Kind, PeerKey, RelPath

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.leases")

_ANSWER_S = 60.0
"""LIMIT: how long a peer may take to bring its copies to the disk and say so."""
_DOUBTED = int(Flag.UNREADABLE | Flag.DAMAGED)


class GivingUp:
    """The nodes whose copies this host is giving up."""

    def __init__(self) -> None:
        """Give up nothing."""
        self._asking: set[int] = set()
        self._decided: set[int] = set()

    @contextmanager
    def asking(self, nodes: Sequence[int]) -> Iterator[list[int]]:
        """Note nodes before peers are asked, till what was decided is recorded.

        Gives those that were not noted by another task already.
        """
        mine = [node for node in dict.fromkeys(nodes) if node not in self]
        self._asking.update(mine)
        try:
            yield mine
        finally:
            self._asking.difference_update(mine)
            self._decided.difference_update(mine)

    def decide(self, nodes: Sequence[int]) -> set[int]:
        """Return those of the nodes for which this host did not give way; it does not any more."""
        left = self._asking.intersection(nodes)
        self._asking -= left
        self._decided |= left
        return left

    def give_way(self, node: int) -> bool:
        """Stop giving up a node, if that is possible still."""
        self._asking.discard(node)
        return node not in self._decided

    def __contains__(self, node: object) -> bool:
        """Say whether a node is being given up."""
        return node in self._asking or node in self._decided


class Wanted(NamedTuple):
    """A copy that this host would give up."""

    node: int
    path: RelPath
    content: Hash


async def ask(
    arena: str, wanted: Sequence[Wanted], holders: Callable[[int, Hash], list[PeerLink]], copies: int
) -> dict[int, int]:
    """Ask peers to confirm their copies, until each has ``copies``; returns how many did, by node.

    To be called inside `GivingUp.asking`. ``holders``: the connected peers that said they hold it durably.
    """
    confirmed = dict.fromkeys((one.node for one in wanted), 0)
    by_link: dict[PeerKey, tuple[PeerLink, list[Wanted]]] = {}
    for one in wanted:
        for link in holders(one.node, one.content):
            by_link.setdefault(link.key, (link, []))[1].append(one)
    for link, all_of_it in by_link.values():
        some = [one for one in all_of_it if confirmed[one.node] < copies]
        if not some:
            continue
        try:
            with trio.move_on_after(_ANSWER_S):
                answers = await link.lease(arena, [one.path for one in some], [one.content for one in some])
                for one, granted in zip(some, answers, strict=True):
                    confirmed[one.node] += granted
        except NetError as error:
            _log.debug("%s confirms nothing of %s: %s", link.name, arena, error)
    return confirmed


class _Copy(NamedTuple):
    """A durable copy of this host; ``identity`` of a real file, None: a blob."""

    node: int
    path: RelPath
    content: Hash
    identity: Identity | None


class Lender:
    """Answers peers that are about to give up copies."""

    def __init__(self, arena: Arena, self_key: PeerKey) -> None:
        """Answer for the copies of ``arena``."""
        self._arena = arena
        self._self_key = self_key
        self._workers = trio.CapacityLimiter(1)
        self._turn = trio.Lock()
        self._syncs = 0

    async def grant(self, peer: PeerKey, paths: Sequence[RelPath], contents: Sequence[Hash]) -> list[bool]:
        """Say for each path whether its content is held here on the disk, and not about to be given up."""
        copies = [self._copy(path, content) for path, content in zip(paths, contents, strict=True)]
        try:
            there = await trio.to_thread.run_sync(
                self._look, [copy for copy in copies if copy is not None], limiter=self._workers
            )
            await self._sync()
        except (OSError, StoreError) as error:
            _log.warning("%s: copies cannot be confirmed to a peer: %s", self._arena.name, error)
            return [False] * len(paths)
        return [
            copy is not None and copy.node in there and self._still(copy) and self._stays(copy.node, peer)
            for copy in copies
        ]

    def _copy(self, path: RelPath, content: Hash) -> _Copy | None:
        """Return the durable copy of a content at a path, as far as the databases know."""
        arena = self._arena
        node = arena.cache.tree.find(path)
        entry = arena.cache.local_entry(node) if node is not None else None
        if node is None or entry is None or entry.kind != Kind.FILE or entry.hash != content:
            return None
        if entry.holding == Holding.REAL:
            if arena.datadir is None or arena.offline or arena.cache.shown(node).flags & _DOUBTED:
                return None
            identity = Identity(entry.size, entry.mtime_ns, arena.cache.local_ino(node))
            return _Copy(node, path, content, identity)
        blob = arena.blobs.info(content) if entry.holding == Holding.CACHED else None
        kept = blob is not None and blob.held and blob.area is Area.PROTECTED
        return _Copy(node, path, content, None) if kept else None

    def _still(self, copy: _Copy) -> bool:
        return self._copy(copy.path, copy.content) == copy

    def _stays(self, node: int, peer: PeerKey) -> bool:
        """Say whether this host keeps its copy, now that ``peer`` wants to give up its own."""
        giving_up = self._arena.giving_up
        if node not in giving_up:
            return True
        return peer < self._self_key and giving_up.give_way(node)

    def _look(self, copies: Sequence[_Copy]) -> set[int]:
        """Return the nodes whose files are where the databases say; in a worker."""
        found: set[int] = set()
        root_fd = open_root(self._arena.datadir) if self._arena.datadir is not None else -1
        try:
            for copy in copies:
                if copy.identity is None:
                    if self._arena.blobs.file_path(copy.content).is_file():
                        found.add(copy.node)
                elif _is_there(root_fd, copy.path, copy.identity):
                    found.add(copy.node)
        finally:
            if root_fd >= 0:
                os.close(root_fd)
        return found

    async def _sync(self) -> None:
        """Bring everything written so far to the disk; those who wait meanwhile share the next time.

        Raises:
            StoreError: the disk failed.
        """
        wanted = self._syncs + 1
        async with self._turn:
            if self._syncs < wanted:
                self._syncs += 1
                await self._arena.blobs.sync()


def _is_there(root_fd: int, path: RelPath, identity: Identity) -> bool:
    parent, name = split(path)
    try:
        at = open_beneath(root_fd, parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            found = os.lstat(name, dir_fd=at)
        finally:
            os.close(at)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and identity.matches(found)
