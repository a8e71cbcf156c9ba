"""Options and arguments that several commands share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.settings import Settings
from core.paths import display, to_str

if TYPE_CHECKING:
    from core.api import Api, ArenaPath

Below = Annotated[
    str | None, typer.Argument(metavar="[PATH]", help="Only this path and below.  [default: all]")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON: one object, or one on each line.")]
Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...",
        help="ARENA/PATH, a bare ARENA, or a path on disk under a datadir, the mount or an overlay.",
    ),
]


def settings_of(context: typer.Context) -> Settings:
    """Return the global options of this run."""
    return context.ensure_object(Settings)


async def locate(api: Api, text: str) -> ArenaPath:
    """Return the path in an arena that a user means (spec 3 §Paths)."""
    return await api.locate(os.fsencode(text), os.getcwdb())


def full_path(at: ArenaPath) -> str:
    """Return ``ARENA/PATH`` as text that survives a round trip, for JSON and for `locate`."""
    return f"{at.arena}/{to_str(at.path)}" if at.path else at.arena


def shown_path(at: ArenaPath) -> str:
    """Return ``ARENA/PATH`` for a terminal."""
    return display(full_path(at))
