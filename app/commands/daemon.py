"""``tui`` and ``demo``: the daemon, on this host's config or as a throw-away household."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from app import output
from app.commands.options import settings_of
from core.addresses import ACCEPTED, parse_address
from core.config import Overrides
from core.errors import UsageError


def register(root: typer.Typer) -> None:
    """Add ``tui`` and ``demo``."""
    root.command("tui")(_tui)
    root.command("demo", short_help="Show it all on a throw-away household.")(_demo)


def _tui(
    context: typer.Context,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="The daemon alone, without the screen.")] = False,
    mount: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Mount the tree here instead of where the config says.")
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Listen here instead; may be repeated. Like 0.0.0.0:9771."),
    ] = None,
    metrics_addr: Annotated[
        str | None, typer.Option(metavar="ADDR", help="Serve metrics here, like localhost:9772.")
    ] = None,
) -> None:
    """Run the daemon with its dashboard.

    Without a screen (--no-ui) it prints `realize: ready` once it listens, has mounted and answers. SIGTERM
    and Ctrl-C stop it in order; SIGHUP reads the config again.

    Examples: `realize tui --mount ~/realize`, `realize tui --no-ui --listen 0.0.0.0:9771`
    """
    if not no_ui and not (output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)):
        raise UsageError("the dashboard needs a terminal", hint="`realize tui --no-ui` runs without")
    settings = settings_of(context)
    for option, addresses in (("--listen", listen or []), ("--metrics-addr", [metrics_addr])):
        for address in addresses:
            if address is not None:
                _check_address(option, address)
    overrides = Overrides(
        mount=_absolute(mount),
        listen=tuple(listen) if listen else None,
        socket=_absolute(settings.socket),
        metrics_addr=metrics_addr,
    )
    config = settings.load(overrides, offline_ok=True)

    from app import logs

    logs.configure(settings.log_level, as_json=settings.log_json, default="info", on_screen=not no_ui)

    from app import daemon

    raise typer.Exit(daemon.run(config, ui=not no_ui))


def _check_address(option: str, address: str) -> None:
    try:
        parse_address(address)
    except ValueError as error:
        raise UsageError(f"{option} {address}: {error}", hint=f"accepted: {ACCEPTED}") from None


def _absolute(path: Path | None) -> Path | None:
    return Path(os.path.abspath(path)) if path is not None else None


def _demo(
    context: typer.Context,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="Keep the household here.  [default: temporary]"),
    ] = None,
    no_ui: Annotated[bool, typer.Option("--no-ui", help="The narrated run, also on a terminal.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the household's files behind.")] = False,
) -> None:
    """Show it all on a throw-away household of two peers with sample files; needs no config.

    On a terminal this is the dashboard, elsewhere a narrated run that exits 0 only if all was seen to work.

    Examples: `realize demo`, `realize demo --no-ui`
    """
    settings = settings_of(context)
    from app import logs

    logs.configure(settings.log_level, as_json=settings.log_json, default="warning", on_screen=not no_ui)

    from app import demo

    raise typer.Exit(demo.run(_absolute(directory), not no_ui, keep))
