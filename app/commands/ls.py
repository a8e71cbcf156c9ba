"""``ls``: names with size, state, mark and holders."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, full_path, locate, settings_of
from core.errors import PathError
from core.paths import display, to_str
from core.types import FileState, Kind

if TYPE_CHECKING:
    from core.api import Api, Entry

_KINDS = {Kind.FILE: "file", Kind.DIR: "dir", Kind.SYMLINK: "symlink", Kind.NONE: "dir"}
_TYPE_BITS = {Kind.FILE: stat.S_IFREG, Kind.SYMLINK: stat.S_IFLNK}
_NS = 1_000_000_000
_HASH_DIGITS = 12
_LEAST = (13, 6, 5)
"""Cells of the longest state, size and mark: pages and directories line up with each other."""


def register(root: typer.Typer) -> None:
    """Add ``ls``."""
    root.command("ls", short_help="List names with state, size, mark and holders.")(_ls)


def _ls(
    context: typer.Context,
    path: Annotated[
        str | None, typer.Argument(metavar="PATH", help="What to list.  [default: the arenas]")
    ] = None,
    long: Annotated[bool, typer.Option("-l", "--long", help="Also mode, time and hash.")] = False,
    recursive: Annotated[bool, typer.Option("-R", "--recursive", help="All that is below too.")] = False,
    as_json: Json = False,
) -> None:
    """List names with state, size, mark and the peers that hold them.

    Examples: `realize ls`, `realize ls docs/2024 -l`, `realize ls -R --json ~/realize/docs`
    """

    async def work(api: Api) -> None:
        printer = _json_page if as_json else _table_page(long=long, full=recursive)
        async with aclosing(_pages(api, path, recursive=recursive)) as pages:
            async for page in pages:
                printer(page)

    call(settings_of(context), work)


async def _pages(api: Api, path: str | None, *, recursive: bool) -> AsyncGenerator[list[Entry], None]:
    """Yield what is to be listed, some entries at a time, parents before what is in them."""
    from core.api import ArenaPath

    entry = await _entry(api, path) if path is not None else None
    if entry is None:
        found = [await api.lookup(ArenaPath(arena.name)) for arena in await api.arenas()]
        roots = await with_contents(api, found)
        yield roots
        pending = list(reversed(roots)) if recursive else []
    else:
        if entry.kind not in (Kind.DIR, Kind.NONE):
            yield [entry]
            return
        pending = [entry]
    while pending:
        below: list[Entry] = []
        parent = pending.pop()
        after = b""
        while True:
            page = await api.listdir(ArenaPath(parent.arena, parent.path), after=after)
            entries = await with_contents(api, page.entries)
            if entries:
                yield entries
                below += [entry for entry in entries if entry.kind is Kind.DIR]
                after = entries[-1].path.rpartition(b"/")[2]
            if not page.more or not entries:
                break
        if recursive:
            pending += reversed(below)


async def with_contents(api: Api, entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries, directories with the state of what is in them."""
    return [await _with_content(api, entry) if entry.kind is Kind.DIR else entry for entry in entries]


async def _with_content(api: Api, entry: Entry) -> Entry:
    from msgspec.structs import replace

    from core.api import ArenaPath
    from core.states import state_with_contents

    try:
        usage = await api.usage(ArenaPath(entry.arena, entry.path))
    except PathError:  # it went away since it was listed
        return entry
    return replace(entry, state=state_with_contents(entry.state, entry.mark, usage.bytes, usage.held))


async def _entry(api: Api, path: str) -> Entry | None:
    """Return the entry that a user means; None for the directory of all arenas, the mount itself."""
    try:
        at = await locate(api, path)
    except PathError:
        mount = (await api.status()).mount
        if mount is None or _absolute(path) != mount:
            raise
        return None
    return await api.lookup(at)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def entry_json(entry: Entry) -> dict[str, object]:
    """Return an entry as ``ls --json`` prints it (spec 3)."""
    return {
        "path": _full(entry),
        "kind": _KINDS[entry.kind],
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
        "mode": entry.mode,
        "hash": entry.hash.hex() if entry.hash else None,
        "state": _settled_state(entry).value,
        "mark": entry.mark.value,
        "holders": list(entry.holders),
        "conflict": entry.conflict,
    }


def _settled_state(entry: Entry) -> FileState:
    """Return the state of what is held; that more is being fetched is for people to see."""
    if entry.state is not FileState.FETCHING:
        return entry.state
    return FileState.PARTIAL if entry.held else FileState.ONLINE


def _json_page(entries: list[Entry]) -> None:
    for entry in entries:
        output.emit_json(entry_json(entry))


def _table_page(*, long: bool, full: bool) -> Callable[[list[Entry]], None]:
    def show(entries: list[Entry]) -> None:
        rows = [_row(entry, long=long, full=full) for entry in entries]
        if long:
            output.table(rows, right=[2], least=(10, *_LEAST))
        else:
            output.table(rows, right=[1], least=_LEAST)

    return show


def _row(entry: Entry, *, long: bool, full: bool) -> list[str]:
    name = _shown_name(entry, full=full)
    size = "" if entry.kind is Kind.DIR else words.human_bytes(entry.size)
    mark = output.styled(entry.mark.value, "bold" if entry.mark_explicit else "dim")
    held_by = ", ".join(display(holder) for holder in entry.holders)
    state = output.state_label(words.shown_state(entry))
    holders = output.styled(f"[{held_by}]", "dim") if held_by else ""
    if not long:
        return [state, size, mark, name, holders]
    mode = stat.filemode(_TYPE_BITS.get(entry.kind, stat.S_IFDIR) | entry.mode)
    digest = entry.hash.hex()[:_HASH_DIGITS] if entry.hash else ""
    return [mode, state, size, mark, _local_time(entry.mtime_ns), digest, name, holders]


def _shown_name(entry: Entry, *, full: bool) -> str:
    last = entry.path.rpartition(b"/")[2] or entry.arena.encode()
    name = display(_full(entry) if full else to_str(last))
    if entry.kind is Kind.DIR:
        return output.styled(name + "/", "blue")
    return f"{name} -> {display(entry.target)}" if entry.kind is Kind.SYMLINK else name


def _full(entry: Entry) -> str:
    from core.api import ArenaPath

    return full_path(ArenaPath(entry.arena, entry.path))


def _local_time(ns: int) -> str:
    """Return a time like ``2025-03-01 14:05``; with seconds since 1970 where no calendar has it."""
    try:
        return datetime.fromtimestamp(ns / _NS, tz=datetime.now().astimezone().tzinfo).strftime(
            "%Y-%m-%d %H:%M"
        )
    except (ValueError, OverflowError, OSError):
        return f"@{ns // _NS}"
