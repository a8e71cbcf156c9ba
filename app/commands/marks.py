"""``mark``: what this host wants to hold of a path."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, Paths, full_path, locate, settings_of, shown_path
from core.errors import PartialError, PathError, PathNotFoundError
from core.types import Mark

if TYPE_CHECKING:
    from core.api import Api, ArenaPath, MarkInfo, MarkRow

T = TypeVar("T")

_HELP = """\
Read and change marks: watch caches what is used, keep always holds a copy, own keeps a real file.
A path without a mark of its own has that of its nearest marked parent, else the arena's."""


def register(root: typer.Typer) -> None:
    """Add ``mark``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("set")(_set)
    group.command("unset")(_unset)
    group.command("get")(_get)
    group.command("list")(_list)
    root.add_typer(group, name="mark", help=_HELP, short_help="Read and change marks: watch, keep, own.")


def _set(
    context: typer.Context,
    mark: Annotated[Mark, typer.Argument(metavar="watch|keep|own", help="The mark.", show_default=False)],
    paths: Paths,
    as_json: Json = False,
) -> None:
    """Mark paths, all or none; a directory's mark holds for everything below it.

    A path that does not exist yet can be marked too: the mark holds as soon as it comes.

    Examples: `realize mark set keep docs/2024`, `realize mark set own photos`
    """
    _apply(context, paths, mark, as_json)


def _unset(context: typer.Context, paths: Paths, as_json: Json = False) -> None:
    """Remove the paths' own marks, all or none, so that they inherit again.

    Example: `realize mark unset docs/2024`
    """
    _apply(context, paths, None, as_json)


def _apply(context: typer.Context, paths: list[str], mark: Mark | None, as_json: bool) -> None:
    async def work(api: Api) -> list[tuple[ArenaPath, MarkInfo | None]]:
        from core.api import MarkChange

        places = [await locate(api, path) for path in paths]
        await api.mark_apply([MarkChange(at, mark) for at in places])
        return [(at, await _info_now(api, at)) for at in places]

    infos = call(settings_of(context), work)
    _print_infos([(at, info) for at, info in infos if info is not None], as_json)
    for at, info in infos:
        if info is None:
            output.note(f"{shown_path(at)} does not exist, and is not marked any more")
        elif not info.exists:
            hint = f"; {info.hint}" if info.hint else ""
            output.note(f"{shown_path(at)} does not exist yet; the mark holds when it comes{hint}")


async def _info_now(api: Api, at: ArenaPath) -> MarkInfo | None:
    """Return the mark of a path that was just changed; None: there is neither path nor mark any more."""
    try:
        return await api.mark_get(at)
    except PathNotFoundError:
        return None


def _get(context: typer.Context, paths: Paths, as_json: Json = False) -> None:
    """Show the mark that holds for each path, and where it comes from.

    Example: `realize mark get docs/2024/report.pdf`
    """

    async def work(api: Api) -> list[tuple[ArenaPath, MarkInfo]]:
        return await _each(paths, lambda path: _info(api, path))

    found = call(settings_of(context), work)
    _print_infos(found, as_json)
    if len(found) < len(paths):
        raise PartialError(f"{len(paths) - len(found)} of {len(paths)} paths have no mark to show")


async def _info(api: Api, path: str) -> tuple[ArenaPath, MarkInfo]:
    at = await locate(api, path)
    return at, await api.mark_get(at)


async def _each(paths: list[str], ask: Callable[[str], Awaitable[T]]) -> list[T]:
    """Return the answers for the paths that have one; the others are told on stderr.

    Raises:
        PathError: no path has an answer.
    """
    answers: list[T] = []
    failed: list[tuple[str, PathError]] = []
    for path in paths:
        try:
            answers.append(await ask(path))
        except PathError as error:
            failed.append((path, error))
    last = failed.pop()[1] if failed and not answers else None
    for path, error_of_path in failed:
        output.fail(path, error_of_path)
    if last is not None:
        raise last
    return answers


def _print_infos(infos: list[tuple[ArenaPath, MarkInfo]], as_json: bool) -> None:
    if as_json:
        for at, info in infos:
            origin = full_path(info.origin) if info.origin is not None else None
            row = {"path": full_path(at), "mark": info.mark.value, "explicit": info.explicit}
            output.emit_json(row | {"origin": origin, "exists": info.exists})
        return
    output.table(
        [(info.mark.value, shown_path(at), output.styled(_origin(info), "dim")) for at, info in infos]
    )


def _origin(info: MarkInfo) -> str:
    if info.explicit:
        return "marked here" if info.exists else "marked for when it comes"
    return f"from {shown_path(info.origin)}" if info.origin is not None else "the arena's default"


def _list(
    context: typer.Context,
    arena: Annotated[
        str | None, typer.Argument(metavar="ARENA", help="Only this arena's.  [default: all]")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the marked paths and what each mark covers.

    Examples: `realize mark list`, `realize mark list docs --json`
    """

    async def work(api: Api) -> tuple[MarkRow, ...]:
        return await api.mark_list(arena)

    rows = call(settings_of(context), work)
    if as_json:
        for row in rows:
            sums = {"files": row.files, "bytes_held": row.bytes_held, "bytes_wanted": row.bytes_wanted}
            path = {"path": full_path(row.at), "mark": row.mark.value}
            output.emit_json(path | sums | {"exists": row.exists})
        return
    if not rows:
        output.note("nothing is marked; the arenas' defaults hold")
        return
    head = ("mark", "files", "held", "wanted", "path")
    output.table([_list_row(row) for row in rows], head=head, right=(1, 2, 3))


def _list_row(row: MarkRow) -> list[str]:
    held, wanted = words.human_bytes(row.bytes_held), words.human_bytes(row.bytes_wanted)
    yet = "" if row.exists else output.styled("  not there yet", "dim")
    return [row.mark.value, str(row.files), held, wanted, shown_path(row.at) + yet]
