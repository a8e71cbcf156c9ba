"""``conflicts``: paths with several versions, and which of them is kept."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import output, words
from app.client import call
from app.commands.options import Below, Json, full_path, locate, settings_of, shown_path
from core.paths import display
from core.types import Kind

if TYPE_CHECKING:
    from core.api import Api, ConflictRow, ConflictVersion, Resolved

_HELP = """\
Paths that were changed on several hosts at once. Nobody's content is touched until one is chosen; in the
mount, `.realize/conflicts/ARENA/PATH/PEER` holds each version."""


def register(root: typer.Typer) -> None:
    """Add ``conflicts``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("list")(_list)
    group.command("resolve")(_resolve)
    root.add_typer(group, name="conflicts", help=_HELP, short_help="List and resolve conflicting versions.")


def _list(
    context: typer.Context,
    path: Below = None,
    as_json: Json = False,
) -> None:
    """List the conflicts: who holds which version, of what size and time; ``*`` is the one shown here.

    Also listed are deletions that lost against a change, until one of them is kept.

    Examples: `realize conflicts list`, `realize conflicts list docs --json`
    """

    async def work(api: Api) -> tuple[ConflictRow, ...]:
        return await api.conflicts(await locate(api, path) if path is not None else None)

    rows = call(settings_of(context), work)
    if as_json:
        for row in rows:
            output.emit_json(
                {
                    "path": full_path(row.at),
                    "revived": row.revived,
                    "versions": [_version_json(one) for one in row.versions],
                }
            )
        return
    if not rows:
        output.note("no conflicts")
        return
    for row in rows:
        note = output.styled("  deleted by one, changed by another", "dim") if row.revived else ""
        print(f"{output.styled(shown_path(row.at), 'bold')}{note}")
        output.table([_version_row(one) for one in row.versions], right=(2,))


def _version_json(one: ConflictVersion) -> dict[str, Any]:
    return {
        "peers": list(one.peers),
        "local": one.here,
        "shown": one.shown,
        "kind": "deleted" if one.kind is Kind.NONE else one.kind.name.lower(),
        "size": one.size,
        "mtime_ns": one.mtime_ns,
        "mode": one.mode,
        "hash": one.hash.hex() if one.hash is not None else None,
    }


def _version_row(one: ConflictVersion) -> list[str]:
    holders = ", ".join([*(["local"] if one.here else []), *map(display, one.peers)])
    first = f"  {'*' if one.shown else ' '} {holders or '(what is in it)'}"
    if one.kind is Kind.NONE:
        return [first, "deleted", "", "", ""]
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.mtime_ns / 1e9))
    content = one.hash.hex()[:12] if one.hash is not None else ""
    return [first, one.kind.name.lower(), words.human_bytes(one.size), when, content]


def _resolve(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="ARENA/PATH or a path on disk.")],
    keep: Annotated[
        str,
        typer.Option(
            "--keep",
            metavar="PEER|local|both",
            help="The version to keep: that of a peer, of this host, or both side by side.",
        ),
    ],
    as_json: Json = False,
) -> None:
    """End a conflict on all hosts. What is not kept goes to the trash of those who had it.

    With `both` the version of this host stays at the path, the others are put beside it as
    NAME.conflict-PEER-YYYYMMDD-HHMMSS.EXT.

    Examples: `realize conflicts resolve docs/plan.txt --keep server`
    """

    async def work(api: Api) -> Resolved:
        return await api.conflict_resolve(await locate(api, path), keep)

    done = call(settings_of(context), work)
    if as_json:
        beside = [full_path(at) for at in done.beside]
        output.emit_json({"path": full_path(done.at), "kept": done.kept, "beside": beside})
        return
    print(f"{shown_path(done.at)}: kept {display(done.kept)}")
    for at in done.beside:
        print(f"{shown_path(at)}: added")
