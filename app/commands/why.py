"""``why``: rule by rule what holds for a path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import output, words
from app.client import call
from app.commands.ls import entry_json, with_contents
from app.commands.options import Json, full_path, locate, settings_of, shown_path
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, Why


def register(root: typer.Typer) -> None:
    """Add ``why``."""
    root.command("why", short_help="Say rule by rule what holds for a path.")(_why)


def _why(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="ARENA/PATH or a path on disk.")],
    as_json: Json = False,
) -> None:
    """Say rule by rule: mark and origin, versions and holders, what a read would do, the next action.

    Example: `realize why docs/report.pdf`
    """

    async def work(api: Api) -> Why:
        from msgspec.structs import replace

        answer = await api.why(await locate(api, path))
        if answer.entry is None:
            return answer
        [entry] = await with_contents(api, [answer.entry])
        return replace(answer, entry=entry)

    answer = call(settings_of(context), work)
    if as_json:
        entry = entry_json(answer.entry) if answer.entry is not None else None
        lines = [{"rule": rule, "finding": finding} for rule, finding in answer.lines]
        output.emit_json({"path": full_path(answer.at), "entry": entry, "lines": lines})
        return
    state = ""
    if answer.entry is not None:
        state = f"  {output.state_label(words.shown_state(answer.entry))}"
    print(f"{output.styled(shown_path(answer.at), 'bold')}{state}")
    output.table(
        [(output.styled(f"  {display(rule)}", "dim"), display(found)) for rule, found in answer.lines]
    )
