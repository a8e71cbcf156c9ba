"""``evict``: give up cached content."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, Paths, full_path, locate, settings_of, shown_path
from core.errors import ContentError, PartialError

if TYPE_CHECKING:
    from core.api import Api, EvictStep


def register(root: typer.Typer) -> None:
    """Add ``evict``."""
    root.command("evict", short_help="Give up cached content.")(_evict)


def _evict(context: typer.Context, paths: Paths, as_json: Json = False) -> None:
    """Give up the cached content of files, and of all files below directories, to free its room.

    A connected peer must confirm to hold it: the last copy is never given up. Real files, and what is
    marked keep or own, stay. Exit 1 when nothing could be given up, 3 when some could not.

    Examples: `realize evict docs/2019`, `realize evict photos/film.mov`
    """
    done: list[EvictStep] = []
    refused: list[EvictStep] = []

    async def work(api: Api) -> None:
        places = [await locate(api, path) for path in paths]
        async with aclosing(api.evict(places)) as steps:  # type: ignore[type-var]  # an async generator
            async for step in steps:
                (refused if step.error else done).append(step)
                if as_json:
                    row = {"path": full_path(step.at), "bytes_freed": step.bytes_freed}
                    output.emit_json(row | {"error": step.error}, now=True)

    call(settings_of(context), work)
    if not as_json and (done or not refused):
        freed = words.human_bytes(sum(step.bytes_freed for step in done))
        print(f"{words.counted(len(done), 'file')} given up, {freed} freed")
    if not refused:
        return
    if not done and len(refused) == 1:
        (step,) = refused
        raise ContentError(f"{shown_path(step.at)}: {step.error}", hint=step.hint)
    for step in refused:
        output.fail(shown_path(step.at), ContentError(step.error, hint=step.hint))
    what = f"{len(refused)} of {words.counted(len(done) + len(refused), 'file')} could not be given up"
    raise PartialError(what) if done else ContentError(what)
