"""Files that were taken out of the datadir because another version came: what becomes of them.

They go to the trash. One that a program went on writing to, though, holds what nobody has seen: it goes
back into the datadir, beside its path, as a file of the user's. Engine thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from core.errors import StoreError
from core.paths import conflict_name, display, join, split
from core.placing import Placement, place
from core.trash import Adoption, Displaced, adopt_displaced, displaced_hash, displaced_node
from core.trashrows import Reason
from core.types import Kind, PeerKey, RelPath

if TYPE_CHECKING:
    from core.arena import Arena

_log = logging.getLogger("realize.core.displaced")

_AGAIN_S = 5.0
"""LIMIT: seconds between looks at files that a program writes to, or that there was no room for."""
_LONGEST_S = 600.0
"""LIMIT: seconds at most between two tries where there is no room: each try reads the whole file."""
_NAMES = 100
"""LIMIT: names that are tried for a file beside its path."""


@dataclass(frozen=True, slots=True)
class Why:
    """Why a file was displaced, and whose change did it; None if that is not known."""

    reason: Reason
    by: PeerKey | None = None
    given_up: bool = False
    """The user put something else in its place, or deleted it there: whatever it holds goes to the trash."""
    mtime_ns: int | None = None
    """Its time when it was indexed. Another content at the same time is rot, and nobody's work."""


class DisplacedFiles:
    """The files of an arena that wait in its work directory to be settled."""

    def __init__(self, arena: Arena, now_ns: Callable[[], int]) -> None:
        """Settle the files of ``arena``; `run` tries again those that could not be at once."""
        self._arena, self._now_ns = arena, now_ns
        self.waiting: dict[Path, tuple[RelPath, Why]] = {}
        """Files to be tried again, where each was, and why it is not there."""

        self._put_off: dict[Path, tuple[float, float]] = {}
        """Those for which there was no room: when each is tried again, and how long that was put off."""
        self._told: set[Path] = set()
        self._busy: set[Path] = set()
        self._weights: dict[Path, int] = {}
        self._weight = 0

    def note(self, file: Path, path: RelPath, why: Why) -> None:
        """Remember a file that was displaced, so that it is settled whatever becomes of who did it."""
        self.waiting[file] = path, why
        self._weigh(file)

    async def run(self) -> None:
        """Try again what waits, for ever."""
        while True:
            await trio.sleep(_AGAIN_S)
            try:
                await self.settle_waiting()
            except StoreError as error:
                self._arena.trouble.found(error)

    async def settle_waiting(self) -> None:
        """Try all that wait again."""
        for file, (path, why) in list(self.waiting.items()):
            if not self._is_too_early(file):
                await self.settle(file, path, why)

    def _is_too_early(self, file: Path) -> bool:
        again_at, _ = self._put_off.get(file, (0.0, 0.0))
        if trio.current_time() >= again_at:
            return False
        with contextlib.suppress(OSError):
            return bool(self._arena.blobs.quota.shortage(file.lstat().st_blocks * 512))
        return False

    async def settle(self, file: Path, path: RelPath, why: Why) -> bool:
        """Move a file that was taken out of ``path`` of the datadir to the trash; says whether it is there.

        If it was written to since it was indexed it goes beside the path instead. While a program has it
        open for writing, or there is no room, it waits, and is tried again every few seconds.
        """
        self.waiting[file] = path, why
        if file in self._busy:
            return False
        self._busy.add(file)
        self._put_weight(file, 0)  # its room is reserved now, as that of any content
        try:
            adopted = await self._settle(file, path, why)
        finally:
            self._busy.remove(file)
            self._weigh(file)
        _, delay_s = self._put_off.pop(file, (0.0, _AGAIN_S / 2))
        if adopted is Adoption.STAYS:
            delay_s = min(2 * delay_s, _LONGEST_S)
            self._put_off[file] = trio.current_time() + delay_s, delay_s
        if adopted not in (Adoption.IN_USE, Adoption.STAYS):
            self.waiting.pop(file, None)
            self._told.discard(file)
            self._put_weight(file, 0)
        elif file not in self._told:
            level = logging.WARNING if adopted is Adoption.STAYS else logging.INFO
            _log.log(level, "%s: %s of %s: %s", self._arena.name, file, display(path), adopted.value)
            self._told.add(file)
        return adopted is Adoption.DONE

    def _weigh(self, file: Path) -> None:
        """Let the quota know what a file that waits takes on the disk now; it may still grow.

        One that is larger than all the quota is not counted: it would leave the cache nothing, for ever.
        """
        disk_bytes = 0
        with contextlib.suppress(OSError):
            disk_bytes = file.lstat().st_blocks * 512
        limit = self._arena.blobs.quota.max_bytes
        self._put_weight(file, disk_bytes if limit is None or disk_bytes <= limit else 0)

    def _put_weight(self, file: Path, disk_bytes: int) -> None:
        before = self._weights.pop(file, 0)
        if disk_bytes:
            self._weights[file] = disk_bytes
        if disk_bytes != before:
            self._weight += disk_bytes - before
            self._arena.blobs.quota.displaced(self._weight)

    @property
    def busy(self) -> bool:
        """Whether files are on their way to the trash, or room is being made for them."""
        return bool(self._busy)

    @property
    def without_room(self) -> int:
        """How many files cannot go to the trash now."""
        return len(self._put_off)

    async def _settle(self, file: Path, path: RelPath, why: Why) -> Adoption:
        arena = self._arena

        def record(found: Displaced) -> None:
            arena.cache.trash.put(
                path,
                found.hash,
                found.size,
                mtime_ns=found.mtime_ns,
                mode=found.mode,
                at_ns=self._now_ns(),
                why=why.reason,
                by=why.by,
            )

        before = None if why.given_up else displaced_hash(file)

        def is_news(found: Displaced) -> bool:
            # After a crash it may be the new version, on its way to the place of the old one.
            versions = arena.cache.entries(displaced_node(file))
            written = before not in (None, found.hash) and found.mtime_ns != why.mtime_ns
            return written and all(version.hash != found.hash for version in versions)

        adopted, found = await adopt_displaced(arena.blobs, file, record, is_news)
        if adopted is Adoption.NEWS and found is not None:
            return await self._put_beside(file, path, found, why)
        return adopted

    async def _put_beside(self, file: Path, path: RelPath, found: Displaced, why: Why) -> Adoption:
        """Put a file that was written to after it was displaced beside its path, where the index finds it."""
        arena = self._arena
        known, datadir = arena.local.datadir_id(), arena.datadir
        if datadir is None or arena.offline or known is None:
            return Adoption.STAYS
        directory, name = split(path)
        for number in range(1, _NAMES):
            beside = join(directory, conflict_name(name, arena.cache.host_name, found.mtime_ns, number))
            placement = Placement(beside, Kind.FILE, found.mtime_ns, found.mode, file)
            try:
                put = partial(place, datadir, [placement], ino=known[1])
                (placed,) = await trio.to_thread.run_sync(put)
            except OSError as error:
                _log.debug("%s: %s stays in the work directory: %s", arena.name, file, error)
                return Adoption.STAYS
            if placed.ino:
                self._tell(path, beside, why)
                return Adoption.NEWS
            if placed.error is not None:
                _log.debug("%s: %s stays in the work directory: %s", arena.name, file, placed.error)
                return Adoption.STAYS
        return Adoption.STAYS

    def _tell(self, path: RelPath, beside: RelPath, why: Why) -> None:
        peer = self._arena.peer_names.get(why.by, "") if why.by is not None else ""
        did = "deleted" if why.reason is Reason.DELETED else "replaced"
        by = f"{display(peer)} {did} it" if peer else f"it was {did}"
        text = f"a program wrote to {display(path)} while {by}; what it wrote is in {display(beside)}"
        _log.warning("%s: %s", self._arena.name, text)
        self._arena.warn(text, "compare them, and delete the one that is not needed")

    async def adopt_leftovers(self) -> None:
        """Settle files that a crash left in the work directory; before anything else uses the arena."""
        for path in sorted(self._arena.work_path.iterdir()):
            if path.name.startswith("old-"):
                await self._adopt_leftover(path)
            elif path.name.startswith("new-"):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

    async def _adopt_leftover(self, file: Path) -> None:
        node, cache = displaced_node(file), self._arena.cache
        try:
            at = cache.tree.path(node)
            reason = Reason.REPLACED if cache.shown(node).kind else Reason.DELETED
        except KeyError:
            at, reason = RelPath(os.fsencode(file.name)), Reason.REPLACED
        await self.settle(file, at, Why(reason))
