"""``get``: fetch content now."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, Paths, full_path, locate, settings_of, shown_path
from core.errors import ContentError, NoHolderError, PartialError, RealizeError

if TYPE_CHECKING:
    from core.api import Api, ArenaPath, GetProgress


def register(root: typer.Typer) -> None:
    """Add ``get``."""
    root.command("get", short_help="Fetch content now.")(_get)


@dataclass
class _Tally:
    """What came of each file so far."""

    files: int = 0
    bytes: int = 0
    failures: list[GetProgress] = field(default_factory=list)
    under_way: dict[ArenaPath, GetProgress] = field(default_factory=dict)

    def add(self, step: GetProgress) -> None:
        self.under_way[step.at] = step
        if step.done:
            del self.under_way[step.at]
            if step.error:
                self.failures.append(step)
            else:
                self.files += 1
                self.bytes += step.bytes_total

    def line(self) -> str:
        done = sum(step.bytes_done for step in self.under_way.values())
        total = sum(step.bytes_total for step in self.under_way.values())
        now = shown_path(next(iter(self.under_way))) if self.under_way else ""
        sizes = f"{words.human_bytes(self.bytes + done)} of {words.human_bytes(self.bytes + total)}"
        return f"↓ {words.counted(self.files, 'file')}, {sizes}  {now}"

    def outcome(self) -> RealizeError | None:
        """Return the error that the command ends with, None when every file came."""
        if not self.failures:
            return None
        count = len(self.failures)
        if self.files:
            return PartialError(f"{count} of {self.files + count} files could not be fetched")
        if count == 1:
            what = f"{shown_path(self.failures[0].at)}: {self.failures[0].error}"
        else:
            what = f"none of {count} files could be fetched"
        if all(step.no_holder for step in self.failures):
            return NoHolderError(what, hint="`realize peer list` shows who is connected")
        return ContentError(what)


def _get(context: typer.Context, paths: Paths, as_json: Json = False) -> None:
    """Fetch the whole content of files, and of all files below directories, now.

    Exit 3 when some could not be fetched, 5 when no peer that holds them is reachable.

    Examples: `realize get docs/report.pdf`, `realize get photos/2024`
    """
    tally = _Tally()
    line = output.ProgressLine()

    async def work(api: Api) -> None:
        places = [await locate(api, path) for path in paths]
        async with aclosing(api.get(places)) as steps:  # type: ignore[type-var]  # an async generator
            async for step in steps:
                tally.add(step)
                if as_json:
                    output.emit_json(_step_json(step), now=True)
                else:
                    line.show(tally.line())

    try:
        call(settings_of(context), work)
    finally:
        line.clear()
    outcome = tally.outcome()
    if len(tally.failures) > 1 or isinstance(outcome, PartialError):
        for step in tally.failures:
            output.fail(shown_path(step.at), ContentError(step.error))
    if outcome is not None:
        raise outcome
    if not as_json:
        print(f"{words.counted(tally.files, 'file')}, {words.human_bytes(tally.bytes)}: all here")


def _step_json(step: GetProgress) -> dict[str, object]:
    return {
        "path": full_path(step.at),
        "bytes_done": step.bytes_done,
        "bytes_total": step.bytes_total,
        "done": step.done,
        "error": step.error,
        "no_holder": step.no_holder,
    }
