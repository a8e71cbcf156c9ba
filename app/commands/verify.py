"""``verify``: read local content again and compare it with its version."""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import typer

from app import output, words
from app.client import call
from app.commands.options import Below, Json, full_path, locate, settings_of, shown_path
from core.errors import CorruptError
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, ArenaPath, VerifyStep


def register(root: typer.Typer) -> None:
    """Add ``verify``."""
    root.command("verify", short_help="Check local content against its version, and repair it.")(_verify)


def _verify(
    context: typer.Context,
    path: Below = None,
    repair: Annotated[bool, typer.Option(help="Fetch what is damaged from a peer.")] = True,
    as_json: Json = False,
) -> None:
    """Hash real files and cached content again; what is damaged is repaired from peers.

    A real file that changed on the disk though nobody wrote it is damaged: its bytes go to the trash when
    it is repaired. With --json a line for each that is not right, then one with the counts. Exit 1 when
    something stays damaged or unreadable.

    Examples: `realize verify`, `realize verify docs/2024 --no-repair`
    """
    counts: Counter[str] = Counter()
    line = output.ProgressLine()

    async def work(api: Api) -> None:
        at = await locate(api, path) if path is not None else None
        async with aclosing(api.verify(at, repair=repair)) as steps:  # type: ignore[type-var]  # a generator
            async for step in steps:
                counts[step.outcome] += 1
                counts["bytes"] += step.bytes
                if step.outcome not in ("ok", "changed"):
                    line.clear()
                    _print(step, as_json)
                line.show(_progress(step))

    try:
        call(settings_of(context), work)
    finally:
        line.clear()
    if as_json:
        kinds = ("ok", "changed", "repaired", "damaged", "unreadable", "bytes")
        output.emit_json({kind: counts[kind] for kind in kinds})
    else:
        _print_counts(counts)
    bad = counts["damaged"] + counts["unreadable"]
    if bad:
        hint = (
            "connect a peer that holds it and verify again" if repair else "without --no-repair it is tried"
        )
        raise CorruptError(f"{words.counted(bad, 'file')} could not be repaired", hint=hint)


def _progress(step: VerifyStep) -> str:
    done, total = words.human_bytes(step.bytes_done), words.human_bytes(step.bytes_total)
    return f"{step.files_done} of {step.files_total}, {done} of {total}  {_name(step.at)}"


def _name(at: ArenaPath) -> str:
    return shown_path(at) if at.path else f"{display(at.arena)}: content of no path"


def _print(step: VerifyStep, as_json: bool) -> None:
    if as_json:
        row = {"path": full_path(step.at), "outcome": step.outcome, "size": step.bytes}
        output.emit_json(row | {"detail": step.detail})
        return
    style = "green" if step.outcome == "repaired" else "red"
    print(f"{output.styled(step.outcome, style)}  {_name(step.at)}: {display(step.detail)}")


def _print_counts(counts: Counter[str]) -> None:
    parts = [f"{words.counted(counts['ok'], 'file')} as they should be"]
    parts += [
        f"{counts[kind]} {kind}" for kind in ("changed", "repaired", "damaged", "unreadable") if counts[kind]
    ]
    print(f"{', '.join(parts)}; {words.human_bytes(counts['bytes'])} read")
