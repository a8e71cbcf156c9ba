"""What must be true at every instant: looked at where it can be broken, not only at rest.

I5 at each removal of a file by a daemon, and each time that a host gives up a copy which it had to keep; I6
at each eviction, I7 after each task step that changed a quota. And what no user of a datadir can know is
noted: that he wrote over a copy which his host held beside it (I8).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import trio
from blake3 import blake3

import core.evicting
from core.arena import Arena
from core.blobrows import Area
from core.blobspace import Space
from core.cache import ArenaCache
from core.cached import CachedContent
from core.local import LocalEntries
from core.quota import Quota
from core.renames import Renamer
from core.types import Hash, Holding, Mark, Vector
from core.unrealizer import Unrealizer
from core.versions import descends
from tests.sim.disks import Disks
from tests.sim.hosts import Host
from tests.sim.ledger import Ledger
from tests.sim.world import World, current

_DURABLE = (
    "SELECT e.node FROM entry e LEFT JOIN blob b ON b.hash = e.hash WHERE e.peer = 0 AND e.hash = ?"
    f" AND e.hash IS NOT NULL AND (e.holding = {int(Holding.REAL)}"
    f" OR e.holding = {int(Holding.CACHED)} AND b.verified AND b.area = {int(Area.PROTECTED)})"
)


class Guards(trio.abc.Instrument):
    """Watches the daemons of a household while they run."""

    def __init__(self, hosts: Sequence[Host], ledger: Ledger, disks: Disks) -> None:
        self._hosts, self._ledger, self._disks = hosts, ledger, disks
        self._changed: list[Quota] = []
        self.removals = 0
        self.evictions = 0
        self.given_up = 0
        self.reservations = 0

    @contextlib.contextmanager
    def watching(self, world: World) -> Iterator[None]:
        """Watch for as long as this lasts."""
        world.on_unlink = self._removing
        with contextlib.ExitStack() as undo:
            for name in ("reserve", "settle"):
                _wrap(undo, Quota, name, self._quota_changed)
            _wrap(undo, Space, "_evict", self._evicting)
            _wrap(undo, LocalEntries, "_change", self._changing)
            _wrap(undo, Renamer, "_move", self._moving)
            _wrap(undo, Renamer, "_take_place", self._moving)
            _wrap(undo, ArenaCache, "set_real", self._outlived)
            _wrap(undo, CachedContent, "add", self._outlived_all)
            _wrap(undo, Unrealizer, "_record", self._unrealizing)
            _wrap(undo, Unrealizer, "_unprotect", self._releasing)
            _wrap(undo, core.evicting, "_give_up", self._evicting_as_asked)
            yield
        world.on_unlink = None

    # -- I7

    def _quota_changed(self, quota: Quota, _: int) -> None:
        self.reservations += 1
        self._changed.append(quota)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if not self._changed:
            return
        for quota in self._changed:
            limit = quota.max_bytes
            if limit is not None and quota.used_bytes + quota.reserved_bytes > limit:
                self._ledger.problems.append(
                    f"I7 {quota.used_bytes} used and {quota.reserved_bytes} reserved of {limit}"
                )
        self._changed.clear()

    # -- I6

    def _evicting(self, space: Space, victims: Sequence[tuple[Hash, int]]) -> None:
        self.evictions += len(victims)
        for host in self._hosts:
            if not host.running or host.arena.blobs._space is not space:
                continue
            cache = host.arena.cache
            for content, _ in victims:
                for node in cache.cached.nodes(content):
                    mark = cache.marks.effective(node, cache.tree.parent_and_name(node)[0])
                    if mark is not Mark.WATCH:
                        path = cache.tree.path(node)
                        self._ledger.problems.append(f"I6 {host.name} evicts {path!r}, marked {mark}")

    # -- I8

    def _changing(self, local: LocalEntries | Renamer, node: int, *_: object) -> None:
        """A file that was made where the host held a cached copy replaces that: it was not renamed alone."""
        held = local._cache.local_entry(node)
        if held is not None and held.holding == Holding.CACHED and held.hash is not None:
            self._ledger.touched(held.hash)

    def _moving(self, renamer: Renamer, _: int, to: int, *__: object) -> None:
        """So does a file that was renamed to there."""
        self._changing(renamer, to)

    def _outlived(self, cache: ArenaCache, node: int, *_: object) -> None:
        """A version that outlives a deletion here was not renamed alone: it may outlive its own rename, too.

        What takes it knows of both from then on, and no vector tells which of them was of that version.
        """
        held, shown = cache.local_entry(node), cache.shown(node)
        if held is None or held.holding != Holding.TOMBSTONE or shown.hash is None:
            return
        if not descends(Vector(shown.vector), Vector(held.vector)):
            self._ledger.touched(shown.hash)

    def _outlived_all(self, cached: CachedContent, nodes: Iterable[int]) -> None:
        for node in nodes:
            self._outlived(cached._cache, node)

    # -- I5

    def _removing(self, path: Any, dir_fd: int | None) -> None:  # noqa: ANN401 - as os.unlink
        at = os.fsencode(path)
        if dir_fd is not None and not at.startswith(b"/"):
            at = os.path.join(os.readlink(b"/proc/self/fd/%d" % dir_fd), at)
        try:
            if os.path.islink(at):
                return
            with open(at, "rb") as file:
                content = blake3(file.read()).digest()
        except OSError:
            return
        self.removals += 1
        host = next((host for host in self._hosts if _is_below(at, host.datadir)), None)
        if host is not None and content in self._ledger.data and not self._disks.holds(content, besides=at):
            self._ledger.problems.append(
                f"I5 {host.name} drops {at!r} from its datadir: {content.hex()[:16]} is nowhere else"
            )
        if content in self._ledger.wanted and not self._disks.holds(content, besides=at):
            process = current.get()
            self._ledger.problems.append(
                f"I5 {process.name if process else '?'} removes {at!r}, the last copy of"
                f" {content.hex()[:16]}, written to {self._ledger.wanted[content]!r}"
            )

    def _unrealizing(self, unrealizer: Unrealizer, taken: Sequence[Any]) -> None:
        for job, _ in taken:
            self._giving_up(unrealizer._arena, job.content, [job.work.node])

    def _releasing(self, unrealizer: Unrealizer, content: Hash, nodes: Sequence[int]) -> None:
        self._giving_up(unrealizer._arena, content, nodes)

    def _evicting_as_asked(self, arena: Arena, node: int, content: Hash) -> None:
        self._giving_up(arena, content, [node])

    def _giving_up(self, arena: Arena, content: Hash, nodes: Sequence[int]) -> None:
        """A host gives up copies; where another one is does not matter: users move files meanwhile."""
        self.given_up += 1
        host = next(host for host in self._hosts if host.has(arena))
        if content not in self._ledger.wanted or content in self._ledger.unsure:
            return
        for other in self._hosts:
            found = other.query(_DURABLE, (content,))
            if any(other is not host or row[0] not in nodes for row in found):
                return
        paths = [arena.cache.tree.path(node) for node in nodes]
        self._ledger.problems.append(
            f"I5 {host.name} gives up {paths} {content.hex()[:16]}, and nobody has a durable copy"
        )


def _is_below(path: bytes, directory: Path | None) -> bool:
    return directory is not None and path.startswith(os.fsencode(directory) + b"/")


def _wrap(undo: contextlib.ExitStack, owner: object, name: str, before: Callable[..., None]) -> None:
    real = getattr(owner, name)

    def call(self: object, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the real one
        before(self, *args)
        return real(self, *args, **kwargs)

    undo.callback(setattr, owner, name, real)
    setattr(owner, name, call)
