"""``arena``: the arenas of this host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, settings_of
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, ArenaInfo, ArenaStatus


def register(root: typer.Typer) -> None:
    """Add ``arena``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("list")(_list)
    group.command("confirm-deletes")(_confirm_deletes)
    root.add_typer(group, name="arena", help="List the arenas of this host; confirm held deletions.")


def _list(context: typer.Context, as_json: Json = False) -> None:
    """List the arenas with their directories, default mark, files and cache.

    Examples: `realize arena list`, `realize arena list --json`
    """

    async def work(api: Api) -> list[tuple[ArenaInfo, ArenaStatus]]:
        infos, status = await api.arenas(), await api.status()
        by_name = {arena.name: arena for arena in status.arenas}
        return [(info, by_name[info.name]) for info in infos if info.name in by_name]

    found = call(settings_of(context), work)
    if as_json:
        output.emit_json({"arenas": [_as_json(info, status) for info, status in found]})
        return
    if not found:
        output.note("no arena is configured; an [[arena]] section of the config adds one")
        return
    head = ("arena", "mark", "files", "size", "cache", "datadir", "state")
    output.table([_row(*one) for one in found], head=head, right=(2, 3, 4))


def _as_json(info: ArenaInfo, status: ArenaStatus) -> dict[str, Any]:
    return {
        "name": info.name,
        "mark": info.mark.value,
        "workdir": info.workdir,
        "datadir": info.datadir,
        "mountpoint": info.mountpoint,
        "files": status.files,
        "bytes": status.bytes,
        "cache": {"used": status.cache.used, "max": status.cache.max},
        "offline": status.offline,
        "held_deletes": status.held_deletes,
    }


def _row(info: ArenaInfo, status: ArenaStatus) -> list[str]:
    cache = words.human_bytes(status.cache.used)
    if status.cache.max is not None:
        cache += f" of {words.human_bytes(status.cache.max)}"
    state = f"offline: {display(status.offline)}" if status.offline else "online"
    if status.held_deletes:
        state += f", {words.counted(status.held_deletes, 'deletion')} held"
    datadir = display(info.datadir) if info.datadir is not None else "none: cache only"
    size = words.human_bytes(status.bytes)
    return [display(info.name), info.mark.value, str(status.files), size, cache, datadir, state]


def _confirm_deletes(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the arena.")],
    as_json: Json = False,
) -> None:
    """Let deletions of many files at once go on that were held back, on all hosts.

    Example: `realize arena confirm-deletes docs`
    """

    async def work(api: Api) -> int:
        return await api.arena_confirm_deletes(name)

    files = call(settings_of(context), work)
    if as_json:
        output.emit_json({"name": name, "files": files})
    elif files:
        print(f"{display(name)}: {words.counted(files, 'file')} deleted")
    else:
        print(f"{display(name)}: no deletions were held")
