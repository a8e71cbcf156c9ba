"""A faithful household in memory behind `core.api.Api`, with a frozen clock.

Runs in a trio loop like the real one. What it shows follows from its files, marks and peers by the
rules of the specification; nothing moves unless `FakeApi.tick` says that time has passed.
"""

from __future__ import annotations

import bisect
import collections
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import trio

from core.api import (
    ArenaInfo,
    ArenaPath,
    ArenaStatus,
    CacheUse,
    ChurtenStatus,
    ConflictRow,
    ConflictVersion,
    Entry,
    EvictStep,
    GetProgress,
    HashingRow,
    JobRow,
    Jobs,
    LogLine,
    MarkChange,
    MarkEffect,
    MarkInfo,
    MarkRow,
    Page,
    PeerStatus,
    Resolved,
    Restored,
    Status,
    TrashRow,
    Usage,
    VerifyOutcome,
    VerifyStep,
    Why,
)
from core.errors import NotYetError, PathNotFoundError, UsageError
from core.events import (
    AnyEvent,
    ChurtenChanged,
    ConflictChanged,
    EventBus,
    JobAction,
    JobChanged,
    MarkChanged,
    PeerChanged,
    TreeChanged,
)
from core.paths import is_below, join, split, to_str
from core.types import FileState, Kind, Mark

_MARK_RANK = {Mark.WATCH: 0, Mark.KEEP: 1, Mark.OWN: 2}


@dataclass(frozen=True, slots=True)
class FakeFile:
    """A file: ``held`` bytes of it are here, ``real`` ones are in the datadir."""

    size: int
    held: int = 0
    real: bool = False
    holders: tuple[str, ...] = ()
    conflict: bool = False
    kind: Kind = Kind.FILE
    target: bytes = b""


@dataclass(frozen=True, slots=True)
class FakeJob:
    """A job on a path."""

    job: int
    at: ArenaPath
    action: JobAction
    state: Literal["active", "queued", "waiting", "failed"]
    bytes_done: int
    bytes_total: int
    rate: float = 0.0
    files: int = 1
    peers: tuple[str, ...] = ()
    reason: str = ""
    retry_s: float | None = None


@dataclass(slots=True)
class _Arena:
    mark: Mark
    cache_max: int | None
    offline: str
    files: dict[bytes, FakeFile]
    names: dict[bytes, list[bytes]]


class FakeApi:
    """Implements `core.api.Api`. Fill it before its loop starts; afterwards only in its thread."""

    def __init__(self, name: str, now_ns: int) -> None:
        self.name = name
        self.now_ns = now_ns
        self.bus = EventBus(lambda: self.now_ns)
        self.peer_list: list[PeerStatus] = []
        self.job_list: list[FakeJob] = []
        self.marks: dict[ArenaPath, Mark] = {}
        self.held_deletes: dict[str, int] = {}
        self.hash_progress: tuple[str, int, int, int, int, float] | None = None
        self.running = True
        self.calls: collections.Counter[str] = collections.Counter()
        self.damaged: dict[ArenaPath, str] = {}
        """Files that `verify` finds damaged, and why they could not be repaired."""
        self.failing: dict[str, Exception] = {}
        """Calls by name that raise this."""
        self.held_up: dict[str, trio.Event] = {}
        """Calls by name that wait for the event first."""
        self._arenas: dict[str, _Arena] = {}
        self._usage: dict[ArenaPath, Usage] = {}
        self._statuses: dict[str, ArenaStatus] = {}

    # Filling it

    def add_arena(
        self, name: str, *, mark: Mark = Mark.WATCH, cache_max: int | None = None, offline: str = ""
    ) -> None:
        self._arenas[name] = _Arena(mark, cache_max, offline, {}, {b"": []})

    def add(self, arena: str, path: bytes, file: FakeFile) -> None:
        store = self._arenas[arena]
        store.files[path] = file
        self._forget_sums()
        while path:
            parent, name = split(path)
            names = store.names.setdefault(parent, [])
            if not names or name > names[-1]:
                names.append(name)
            else:
                index = bisect.bisect_left(names, name)
                if names[index] == name:
                    return
                names.insert(index, name)
            path = parent

    def remove(self, arena: str, path: bytes) -> None:
        store = self._arenas[arena]
        del store.files[path]
        parent, name = split(path)
        store.names[parent].remove(name)
        self._forget_sums()

    def _forget_sums(self) -> None:
        self._usage.clear()
        self._statuses.clear()

    def changed(self, arena: str, *paths: bytes) -> None:
        """Announce that these paths have changed."""
        self._forget_sums()
        self.bus.emit(TreeChanged(arena=arena, directories=tuple({split(path)[0] for path in paths})))

    def _enter(self, call: str) -> None:
        self.calls[call] += 1
        if call in self.failing:
            raise self.failing[call]

    async def _checked(self, call: str) -> None:
        self._enter(call)
        if call in self.held_up:
            await self.held_up[call].wait()
        await trio.lowlevel.checkpoint()

    def _arena(self, name: str) -> _Arena:
        if name not in self._arenas:
            raise PathNotFoundError(f"no arena {name!r}", hint=f"there are: {', '.join(self._arenas)}")
        return self._arenas[name]

    # Status

    async def status(self) -> Status:
        await self._checked("status")
        jobs = self._job_counts()
        waiting = ""
        if self.hash_progress is not None:
            waiting = f"hashing {self.hash_progress[0]}"
        elif jobs["active"]:
            waiting = f"{jobs['active']} transfers"
        return Status(
            schema=1, name=self.name, fingerprint="kilo-lima-mike", version="0.1.0", mount="/home/me/realize",
            idle=not waiting, arenas=tuple(self._arena_status(name) for name in self._arenas),
            peers=tuple(self.peer_list), waiting_for=waiting,
            churten=ChurtenStatus(
                self.running, jobs["active"], jobs["queued"] + jobs["waiting"], jobs["failed"]
            ),
        )  # fmt: skip

    def _job_counts(self) -> collections.Counter[str]:
        return collections.Counter(job.state for job in self.job_list)

    def _arena_status(self, name: str) -> ArenaStatus:
        if name not in self._statuses:
            self._statuses[name] = self._count_arena(name)
        return self._statuses[name]

    def _count_arena(self, name: str) -> ArenaStatus:
        arena = self._arenas[name]
        usage = self._usage_of(ArenaPath(name))
        real = sum(file.real for file in arena.files.values())
        cached = sum(not file.real and file.held == file.size for file in arena.files.values())
        progress = self.hash_progress
        hashing = progress[2] - progress[1] if progress is not None and progress[0] == name else 0
        return ArenaStatus(
            name=name, mark=arena.mark, files=usage.files, real=real, cached=cached,
            online=usage.files - real - cached, bytes=usage.bytes,
            cache=CacheUse(sum(f.held for f in arena.files.values() if not f.real), arena.cache_max),
            hashing=hashing, conflicts=sum(file.conflict for file in arena.files.values()),
            only_here=sum(file.real and not file.holders for file in arena.files.values()),
            offline=arena.offline, held_deletes=self.held_deletes.get(name, 0),
        )  # fmt: skip

    async def wait_idle(self, timeout_s: float) -> Status:
        status = await self.status()
        if not status.idle:
            raise NotYetError(f"not idle after {timeout_s} s: {status.waiting_for}")
        return status

    async def arenas(self) -> tuple[ArenaInfo, ...]:
        await self._checked("arenas")
        return tuple(
            ArenaInfo(name, f"/store/{name}", f"/store/{name}/data", None, arena.mark)
            for name, arena in self._arenas.items()
        )

    async def locate(self, text: bytes, cwd: bytes) -> ArenaPath:
        await self._checked("locate")
        arena, _, path = text.partition(b"/")
        self._arena(to_str(arena))
        return ArenaPath(to_str(arena), path)

    # The tree

    def _entry(self, at: ArenaPath) -> Entry:
        arena = self._arena(at.arena)
        mark = self._mark_info(at)
        file = arena.files.get(at.path)
        if file is None:
            if at.path not in arena.names:
                raise PathNotFoundError(f"no path {to_str(at.path)!r} in {at.arena}")
            return Entry(
                arena=at.arena, path=at.path, kind=Kind.DIR, size=0, mtime_ns=self.now_ns, mode=0o755,
                hash=None, state=self._dir_state(at), mark=mark.mark, mark_explicit=mark.explicit, holders=(),
                conflict=False,
            )  # fmt: skip
        job = next((job for job in self.job_list if job.at == at and job.state == "active"), None)
        held = max(file.held, job.bytes_done if job is not None and job.action == "download" else 0)
        return Entry(
            arena=at.arena, path=at.path, kind=file.kind, size=file.size, mtime_ns=self.now_ns - file.size,
            mode=0o644, hash=b"\x11" * 32, state=self._state(file, mark.mark, job), mark=mark.mark,
            mark_explicit=mark.explicit, holders=file.holders, conflict=file.conflict,
            held=file.size if file.real else held, target=file.target,
        )  # fmt: skip

    def _state(self, file: FakeFile, mark: Mark, job: FakeJob | None) -> FileState:
        if file.conflict:
            return FileState.CONFLICT
        if file.real:
            return FileState.REAL if file.holders else FileState.ONLY_HERE
        if job is not None and job.action == "download":
            return FileState.FETCHING
        if file.held == file.size:
            return FileState.CACHED if mark == Mark.WATCH else FileState.KEPT
        connected = {peer.name for peer in self.peer_list if peer.state == "connected"}
        if not connected.intersection(file.holders):
            return FileState.UNAVAILABLE
        return FileState.PARTIAL if file.held else FileState.ONLINE

    def _dir_state(self, at: ArenaPath) -> FileState:
        usage = self._usage_of(at)
        if not usage.held:
            return FileState.ONLINE
        return FileState.CACHED if usage.held == usage.bytes else FileState.PARTIAL

    async def lookup(self, at: ArenaPath) -> Entry:
        await self._checked("lookup")
        return self._entry(at)

    async def listdir(self, at: ArenaPath, *, after: bytes = b"", limit: int = 1000) -> Page:
        await self._checked("listdir")
        arena = self._arena(at.arena)
        names = arena.names.get(at.path)
        if names is None:
            raise PathNotFoundError(f"no directory {to_str(at.path)!r} in {at.arena}")
        low = bisect.bisect_right(names, after) if after else 0
        entries = tuple(
            self._entry(ArenaPath(at.arena, join(at.path, name))) for name in names[low : low + limit]
        )
        return Page(entries, low + limit < len(names))

    async def search(self, query: str, *, arena: str | None = None, limit: int = 200) -> tuple[Entry, ...]:
        await self._checked("search")
        pattern = re.compile(".*?".join(re.escape(char) for char in query), re.IGNORECASE)
        found: list[tuple[int, str, bytes]] = []
        for name in [arena] if arena is not None else list(self._arenas):
            for path in self._arena(name).files:
                match = pattern.search(path.decode("utf-8", "surrogateescape"))
                if match is not None:
                    found.append((match.end() - match.start(), name, path))
        found.sort()
        return tuple(self._entry(ArenaPath(name, path)) for _, name, path in found[:limit])

    async def usage(self, at: ArenaPath) -> Usage:
        await self._checked("usage")
        self._arena(at.arena)
        return self._usage_of(at)

    def _usage_of(self, at: ArenaPath) -> Usage:
        if at not in self._usage:
            self._sum_up(at.arena)
        return self._usage.get(at, Usage(0, 0, 0))

    def _sum_up(self, arena: str) -> None:
        sums: dict[bytes, list[int]] = {b"": [0, 0, 0]}
        for path, file in self._arenas[arena].files.items():
            above: bytes | None = path
            while above is not None:
                total = sums.setdefault(above, [0, 0, 0])
                total[0] += 1
                total[1] += file.size
                total[2] += file.size if file.real else file.held
                above = split(above)[0] if above else None
        self._usage |= {ArenaPath(arena, path): Usage(*total) for path, total in sums.items()}

    async def why(self, at: ArenaPath) -> Why:
        await self._checked("why")
        entry = self._entry(at) if at.path else None
        info = self._mark_info(at)
        origin = (
            "the arena's default"
            if info.origin is None
            else f"{info.origin.arena}/{to_str(info.origin.path)}"
        )
        lines = [("mark", f"{info.mark}, from {origin}")]
        if entry is not None:
            lines += [
                ("holders", ", ".join(entry.holders) or "no peer"),
                ("state", entry.state.value),
                (
                    "a read would",
                    "be served from here" if entry.held == entry.size else "fetch from a holder",
                ),
                ("next action", "none"),
            ]
        return Why(at, entry, tuple(lines))

    # Peers

    async def peers(self) -> tuple[PeerStatus, ...]:
        await self._checked("peers")
        return tuple(self.peer_list)

    def _set_peer(
        self, name: str, state: Literal["connecting", "connected", "disabled"], reason: str
    ) -> None:
        for index, peer in enumerate(self.peer_list):
            if peer.name == name:
                self.peer_list[index] = msgspec.structs.replace(
                    peer, state=state, reason=reason, rtt_ms=None, rx_rate=0.0, tx_rate=0.0
                )
                self.bus.emit(PeerChanged(peer=name, state=state, reason=reason))
                return
        raise PathNotFoundError(f"no peer {name!r}", hint="see realize peer list")

    async def peer_connect(self, name: str) -> None:
        await self._checked("peer_connect")
        self._set_peer(name, "connecting", "")

    async def peer_disconnect(self, name: str) -> None:
        await self._checked("peer_disconnect")
        self._set_peer(name, "disabled", "disabled here")

    # Marks

    def _mark_info(self, at: ArenaPath) -> MarkInfo:
        path = at.path
        while True:
            origin = ArenaPath(at.arena, path)
            if origin in self.marks:
                return MarkInfo(self.marks[origin], origin == at, origin)
            if not path:
                return MarkInfo(self._arena(at.arena).mark, False, None)
            path = split(path)[0]

    async def mark_get(self, at: ArenaPath) -> MarkInfo:
        await self._checked("mark_get")
        if not self._exists(at) and at not in self.marks:
            raise PathNotFoundError(f"no path {to_str(at.path)!r} in {at.arena}")
        return msgspec.structs.replace(self._mark_info(at), exists=self._exists(at))

    def _exists(self, at: ArenaPath) -> bool:
        arena = self._arena(at.arena)
        return at.path in arena.files or at.path in arena.names

    async def mark_apply(self, changes: Sequence[MarkChange]) -> tuple[MarkChange, ...]:
        await self._checked("mark_apply")
        undo = []
        for change in changes:
            if change.mark is None and not self._exists(change.at) and change.at not in self.marks:
                raise PathNotFoundError(f"no path {to_str(change.at.path)!r} in {change.at.arena}")
            self._arena(change.at.arena)
            undo.append(MarkChange(change.at, self.marks.get(change.at)))
        for change in changes:
            if change.mark is None:
                self.marks.pop(change.at, None)
            else:
                self.marks[change.at] = change.mark
            self.bus.emit(MarkChanged(arena=change.at.arena, path=change.at.path, mark=change.mark))
            self.bus.emit(TreeChanged(arena=change.at.arena))
        return tuple(reversed(undo))

    async def mark_list(self, arena: str | None = None) -> tuple[MarkRow, ...]:
        await self._checked("mark_list")
        return tuple(
            MarkRow(
                at,
                mark,
                usage.files,
                usage.held,
                0 if mark == Mark.WATCH else usage.bytes,
                exists=self._exists(at),
            )
            for at, mark in sorted(self.marks.items())
            if arena in (None, at.arena)
            for usage in [self._usage_of(at)]
        )

    async def mark_effect(self, changes: Sequence[MarkChange]) -> MarkEffect:
        await self._checked("mark_effect")
        files = fetch = free = 0
        for change in changes:
            usage = self._usage_of(change.at)
            old = self._mark_info(change.at).mark
            new = change.mark or self._arena(change.at.arena).mark
            files += usage.files
            if _MARK_RANK[new] > _MARK_RANK[old]:
                fetch += usage.bytes - usage.held
            elif new == Mark.WATCH and old != Mark.WATCH:
                free += usage.held
        return MarkEffect(files, fetch, free)

    # Churten

    async def churten_start(self) -> None:
        await self._checked("churten_start")
        self.running = True
        self.bus.emit(ChurtenChanged(running=True))

    async def churten_stop(self) -> None:
        await self._checked("churten_stop")
        self.running = False
        self.bus.emit(ChurtenChanged(running=False))

    async def jobs(self, *, limit: int = 200) -> Jobs:
        await self._checked("jobs")
        counts = self._job_counts()
        rows = tuple(
            JobRow(
                job.job, job.at, job.action, job.state, job.files, job.bytes_done, job.bytes_total,
                job.rate if self.running else 0.0,
                (job.bytes_total - job.bytes_done) / job.rate if job.rate and self.running else None,
                job.peers, job.reason, job.retry_s,
            )
            for job in self.job_list[:limit]
        )  # fmt: skip
        hashing = (HashingRow(*self.hash_progress),) if self.hash_progress is not None else ()
        return Jobs(
            self.running, counts["active"], counts["queued"] + counts["waiting"], counts["failed"],
            sum(row.rate for row in rows), rows, hashing,
        )  # fmt: skip

    async def job_retry(self, at: ArenaPath) -> None:
        await self._checked("job_retry")
        for index, job in enumerate(self.job_list):
            if job.at == at and job.state in ("failed", "waiting"):
                self.job_list[index] = replace(job, state="queued", reason="", retry_s=None)
                self._emit_job(self.job_list[index], "queued")

    def _emit_job(self, job: FakeJob, phase: Literal["queued", "progress", "finished"]) -> None:
        self.bus.emit(
            JobChanged(
                job=job.job, arena=job.at.arena, path=job.at.path, action=job.action, phase=phase,
                bytes_done=job.bytes_done, bytes_total=job.bytes_total, files=job.files, rate=job.rate,
                peers=job.peers,
            )
        )  # fmt: skip

    async def get(self, paths: Sequence[ArenaPath]) -> AsyncIterator[GetProgress]:
        await self._checked("get")
        for at in paths:
            arena = self._arena(at.arena)
            for path in [path for path in arena.files if is_below(path, at.path)]:
                file = arena.files[path]
                here = ArenaPath(at.arena, path)
                if not file.holders:
                    yield GetProgress(here, file.held, file.size, True, "no connected peer holds it", True)
                    continue
                arena.files[path] = replace(file, held=file.size)
                self.changed(at.arena, path)
                yield GetProgress(here, file.size, file.size, True)

    async def events(self) -> AsyncIterator[list[AnyEvent]]:
        self._enter("events")
        with self.bus.subscribe() as subscription:
            async for batch in subscription.batches():
                yield batch

    # Upkeep

    def _files_below(self, paths: Sequence[ArenaPath]) -> list[ArenaPath]:
        return [
            ArenaPath(at.arena, path)
            for at in paths
            for path in self._arena(at.arena).files
            if is_below(path, at.path)
        ]

    def _all_or(self, at: ArenaPath | None) -> list[ArenaPath]:
        return [ArenaPath(name) for name in self._arenas] if at is None else [at]

    async def trash_list(self, at: ArenaPath | None = None) -> tuple[TrashRow, ...]:
        await self._checked("trash_list")
        return ()

    async def trash_restore(self, at: ArenaPath, *, content: bytes = b"") -> tuple[Restored, ...]:
        await self._checked("trash_restore")
        raise PathNotFoundError(f"nothing of {to_str(at.path)!r} is in the trash")

    async def conflicts(self, at: ArenaPath | None = None) -> tuple[ConflictRow, ...]:
        await self._checked("conflicts")
        rows = []
        for here in self._files_below(self._all_or(at)):
            file = self._arenas[here.arena].files[here.path]
            if file.conflict:
                local = ConflictVersion(
                    (), True, True, file.kind, file.size, self.now_ns, 0o644, b"\x11" * 32
                )
                remote = msgspec.structs.replace(local, peers=file.holders, here=False, shown=False)
                rows.append(ConflictRow(here, False, (local, remote)))
        return tuple(rows)

    async def conflict_resolve(self, at: ArenaPath, keep: str) -> Resolved:
        await self._checked("conflict_resolve")
        files = self._arena(at.arena).files
        if at.path not in files or not files[at.path].conflict:
            raise UsageError(f"{to_str(at.path)!r} is in no conflict")
        peers = files[at.path].holders
        if keep not in ("local", "both", *peers):
            raise UsageError(f"{keep!r} holds no version of {to_str(at.path)!r}")
        files[at.path] = replace(files[at.path], conflict=False)
        self.bus.emit(ConflictChanged(arena=at.arena, path=at.path, peers=peers, resolved=True))
        self.changed(at.arena, at.path)
        return Resolved(at, keep)

    async def log(
        self, at: ArenaPath | None = None, *, since_ns: int = 0, follow: bool = False
    ) -> AsyncIterator[list[LogLine]]:
        await self._checked("log")
        yield []
        if follow:
            await trio.sleep_forever()

    async def verify(self, at: ArenaPath | None = None, *, repair: bool = True) -> AsyncIterator[VerifyStep]:
        await self._checked("verify")
        files = self._files_below(self._all_or(at))
        total = sum(self._arenas[here.arena].files[here.path].held for here in files)
        done = 0
        for count, here in enumerate(files, 1):
            held = self._arenas[here.arena].files[here.path].held
            done += held
            detail = self.damaged.get(here, "")
            outcome: VerifyOutcome = "damaged" if detail else "ok"
            yield VerifyStep(here, outcome, held, detail, count, len(files), done, total)

    async def evict(self, paths: Sequence[ArenaPath]) -> AsyncIterator[EvictStep]:
        await self._checked("evict")
        connected = {peer.name for peer in self.peer_list if peer.state == "connected"}
        for here in self._files_below(paths):
            files = self._arenas[here.arena].files
            file = files[here.path]
            if not file.held:
                continue
            if not connected.intersection(file.holders):
                yield EvictStep(here, 0, "no connected peer confirms to hold it", "connect one")
                continue
            files[here.path] = replace(file, held=0)
            self.changed(here.arena, here.path)
            yield EvictStep(here, file.held)

    async def arena_confirm_deletes(self, name: str) -> int:
        await self._checked("arena_confirm_deletes")
        self._arena(name)
        count = self.held_deletes.pop(name, 0)
        self.changed(name, b"")
        return count

    # Time

    def tick(self, seconds: float) -> None:
        """Let time pass: active downloads move on, and finish."""
        self.now_ns += int(seconds * 1e9)
        if not self.running:
            return
        for index, job in enumerate(self.job_list):
            if job.state != "active" or not job.rate:
                continue
            done = min(job.bytes_total, job.bytes_done + int(job.rate * seconds))
            self.job_list[index] = job = replace(job, bytes_done=done)
            self._emit_job(job, "finished" if done == job.bytes_total else "progress")
            if done == job.bytes_total and job.at.path in self._arenas[job.at.arena].files:
                store = self._arenas[job.at.arena]
                store.files[job.at.path] = replace(store.files[job.at.path], held=done)
                self.changed(job.at.arena, job.at.path)
        self.job_list = [j for j in self.job_list if j.state != "active" or j.bytes_done < j.bytes_total]
