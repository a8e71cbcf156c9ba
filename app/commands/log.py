"""``log``: the audit log, what was done to files, by whom and why."""

from __future__ import annotations

import re
import time
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app import output
from app.client import call
from app.commands.options import Below, Json, full_path, locate, settings_of, shown_path
from core.errors import UsageError
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, LogLine

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)", re.IGNORECASE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_STYLES = {"removed": "red", "conflict": "red", "revived": "yellow", "evicted": "yellow", "added": "green"}


def register(root: typer.Typer) -> None:
    """Add ``log``."""
    root.command("log", short_help="The audit log: what was done to files, by whom and why.")(_log)


def _log(
    context: typer.Context,
    path: Below = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what happens.")] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="T", help="Only what is younger: 10m, 2h, 3d, 2026-01-31, 2026-01-31T12:00."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show every change made to a file or cached content, with its cause, in the order of time.

    Examples: `realize log --since 1h`, `realize log --follow docs/2024 --json`
    """
    since_ns = parse_since(since, time.time_ns()) if since is not None else 0

    async def work(api: Api) -> None:
        at = await locate(api, path) if path is not None else None
        lines = api.log(at, since_ns=since_ns, follow=follow)
        async with aclosing(lines) as batches:  # type: ignore[type-var]  # an async generator
            async for batch in batches:
                for line in batch:
                    _print(line, as_json, now=follow)

    call(settings_of(context), work)


def parse_since(text: str, now_ns: int) -> int:
    """Return the wall clock in ns that a time or an age means; times without a zone are local.

    Raises:
        UsageError: it is neither.
    """
    match = _AGO.fullmatch(text.strip())
    if match is not None:
        return now_ns - int(float(match[1]) * _SECONDS[match[2].lower()] * 1e9)
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp() * 1e9)
    except (ValueError, OverflowError, OSError):
        hint = "an age like 10m, 2h, 3d, or a time like 2026-01-31 or 2026-01-31T12:00"
        raise UsageError(f"--since {text!r} is not a time", hint=hint) from None


def _print(line: LogLine, as_json: bool, *, now: bool) -> None:
    if as_json:
        output.emit_json(
            {
                "at_ns": line.at_ns,
                "path": full_path(line.at),
                "what": line.what,
                "cause": line.cause,
                "peer": line.peer,
                "before": line.before,
                "after": line.after,
                "detail": line.detail,
            },
            now=now,
        )
        return
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.at_ns / 1e9))
    what = output.styled(f"{line.what:<10}", _STYLES.get(line.what, ""))
    why = f"{line.cause} {display(line.peer)}".strip()
    detail = f"  {display(line.detail)}" if line.detail and line.detail != line.peer else ""
    print(f"{output.styled(when, 'dim')}  {what}  {shown_path(line.at)}  [{why}]{detail}", flush=now)
