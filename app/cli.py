"""The command line: global options, the list of commands, and how errors leave (spec 3 §Command line).

Commands import what they need when they run, so that ``--help`` and ``status`` start at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from app import output
from app.commands import (
    arena,
    churten,
    config,
    conflicts,
    daemon,
    doctor,
    evict,
    get,
    identity,
    init,
    log,
    ls,
    marks,
    peers,
    status,
    trash,
    verify,
    why,
)
from app.settings import Settings
from core.errors import RealizeError, UsageError, exit_code

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_EPILOG = """\
Examples: `realize init --arena docs=~/Documents --listen 0.0.0.0:9771` sets up this host, `realize id`
prints what the other hosts need, `realize tui --mount ~/realize` starts the daemon with its dashboard,
`realize demo` shows it all on a throw-away household."""

# typer raises the errors of its private copy of click and exports one of them only.
_ClickError: type[Exception] = next(
    cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "ClickException"
)


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        print(f"realize {version('realize')}")
        raise typer.Exit


def _root(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="The config file.  [default: $REALIZE_CONFIG, else $XDG_CONFIG_HOME/realize/realize.toml]",
        ),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Control socket of the daemon.  [default: the config's]"),
    ] = None,
    log_level: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL",
            help="error, warning, info or debug, also by logger: info,realize.net=debug."
            "  [default: $REALIZE_LOG, else error; info for the daemon]",
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log lines are JSON objects.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Decentralised, partial file sync: every host sees every file, and holds what it wants."""
    settings = context.ensure_object(Settings)
    settings.config, settings.socket = config_file, socket
    settings.log_level, settings.log_json = log_level, log_json
    from app import logs

    logs.check_level(log_level)
    # What goes wrong in a command is its error; a log of it would only say so twice.
    logs.configure(log_level, as_json=log_json, default="error")
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(2)


def build() -> typer.Typer:
    """Return the whole command line."""
    root = typer.Typer(
        name="realize",
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        epilog=_EPILOG,
        invoke_without_command=True,
        callback=_root,
    )
    for module in (
        *(init, identity, config, daemon, status, ls, why, log, get, evict, marks, peers, arena, churten),
        *(conflicts, trash, verify, doctor),
    ):
        module.register(root)
    return root


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Errors are printed, none is raised."""
    settings = Settings()
    command = typer.main.get_command(build())
    try:
        code = command.main(args=list(arguments), prog_name="realize", standalone_mode=False, obj=settings)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the top: nothing above could show it
        return _failed(error, settings)
    return code if isinstance(code, int) else 0


def _failed(error: BaseException, settings: Settings) -> int:
    """Print an error as users see it and return its exit code."""
    match error:
        case KeyboardInterrupt() | typer.Abort():
            return EXIT_INTERRUPTED
        case BrokenPipeError():
            # Whoever read our output has gone; python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_BROKEN_PIPE
        case RealizeError():
            output.print_error(error)
            code = exit_code(error)
        case _ if isinstance(error, _ClickError):
            usage = UsageError(_usage_text(error), hint=_usage_hint(error))
            output.print_error(usage)
            return exit_code(usage)
        case _:
            text = f"internal error: {type(error).__name__}: {error}"
            hint = "" if settings.debug else "--log-level debug shows where; please report it"
            output.print_error(RealizeError(text, hint=hint))
            code = 1
    if settings.debug:
        traceback.print_exception(error)
    return code


def _usage_text(error: Exception) -> str:
    text = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(str(text).split()).rstrip(".")


def _usage_hint(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return f"`{context.command_path} --help` lists what it takes" if context is not None else ""


def main() -> None:
    """Run the command line of this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
