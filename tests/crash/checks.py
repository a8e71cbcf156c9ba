"""What has to be true of a household at rest, by its directories and what the daemons answer."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import trio

from app.demo.household import Peer
from core.api import Api, ArenaPath, Entry
from core.types import Kind, Mark
from net.control import ControlClient
from tests.crash.user import digest, files_below

T = TypeVar("T")
ARENA = "docs"
Tree = dict[bytes, Entry]


def ask(peer: Peer, work: Callable[[Api], Awaitable[T]]) -> T:
    """Return what ``work`` gets from a peer's daemon.

    Raises:
        RealizeError: what the daemon answered, or that it does not.
    """

    async def run() -> T:
        async with ControlClient(peer.socket) as api:
            return await work(api)

    try:
        return trio.run(run)
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def tree(api: Api) -> Tree:
    """Return all that a daemon shows, by path."""
    found: Tree = {}
    todo = [b""]
    while todo:
        page = await api.listdir(ArenaPath(ARENA, todo.pop()), limit=10_000)
        for entry in page.entries:
            found[entry.path] = entry
            if entry.kind is Kind.DIR:
                todo.append(entry.path)
    return found


def _common(entry: Entry) -> tuple[object, ...]:
    """Return what has to be equal everywhere of a path."""
    if entry.conflict:
        return ("conflict",)
    if entry.kind is Kind.DIR:
        return (entry.kind, entry.mode & 0o777)
    return (entry.kind, entry.size, entry.mtime_ns, entry.mode, entry.hash, entry.target)


def trees_differ(trees: dict[str, Tree]) -> list[str]:
    (name, first), *others = trees.items()
    return [
        f"I1 {path!r}: {name} {first.get(path)}, {other_name} {other.get(path)}"
        for other_name, other in others
        for path in sorted(first.keys() | other.keys())
        if path not in first or path not in other or _common(first[path]) != _common(other[path])
    ]


def datadir_differs(peer: Peer, shown: Tree) -> Iterator[str]:
    """Compare the real files with what their daemon shows at their paths."""
    root = peer.datadir()
    for file in files_below(root):
        path = bytes(file.relative_to(root))
        entry = shown.get(path)
        if entry is None:
            yield f"{peer.name}: {file} is real and not shown"
        elif entry.hash != digest(file.read_bytes()) and not entry.conflict:
            yield f"{peer.name}: {file} has another content than is shown for it"


async def damaged(api: Api) -> list[str]:
    """Return what `verify` finds wrong, without repairing it."""
    steps = [step async for step in api.verify(repair=False)]
    return [f"{step.at.path!r}: {step.outcome}: {step.detail}" for step in steps if step.outcome != "ok"]


def unsatisfied(peer: Peer, shown: Tree) -> Iterator[str]:
    """Say what should be a real file here by its mark and is none."""
    for path, entry in shown.items():
        owned = entry.kind is Kind.FILE and entry.mark is Mark.OWN and not entry.conflict
        if owned and not (peer.datadir() / os.fsdecode(path)).is_file():
            yield f"{peer.name}: {path!r} is marked own and not real: {entry.state}"


def left_over(peer: Peer) -> Iterator[str]:
    for file in files_below(_workdir(peer) / "work"):
        yield f"{peer.name}: {file} is left in the work directory"


def _workdir(peer: Peer) -> Path:
    return peer.datadir().parent


def lost(peers: list[Peer], trees: dict[str, Tree], contents: dict[bytes, str]) -> Iterator[str]:
    """I2: what a user wrote and did not give up is on a disk, live, in conflict or in the trash."""
    on_disk: set[bytes] = set()
    reachable = {entry.hash for shown in trees.values() for entry in shown.values()}
    for peer in peers:
        for root in (peer.datadir(), _workdir(peer) / "blobs"):
            on_disk |= {digest(file.read_bytes()) for file in files_below(root)}
        reachable |= ask(peer, _kept_aside)
    for content, where in contents.items():
        if content not in on_disk:
            yield f"I2 {content.hex()[:16]}, written to {where}, is nowhere"
        elif content not in reachable:
            yield f"I2 {content.hex()[:16]}, written to {where}, is on a disk and cannot be reached"


async def _kept_aside(api: Api) -> set[bytes | None]:
    trash = await api.trash_list()
    conflicts = await api.conflicts()
    versions = [version for row in conflicts for version in row.versions]
    return {row.hash for row in trash} | {version.hash for version in versions}
