"""``config check``: says whether the configuration is right."""

from __future__ import annotations

import typer

from app import output
from app.commands.options import Json, settings_of
from core.config import Config, deferred_keys
from core.errors import ConfigError, exit_code
from core.paths import display


def register(root: typer.Typer) -> None:
    """Add ``config``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("check")(_check)
    root.add_typer(group, name="config", help="Check the config file.")


# A callback keeps `check` a command of the group while it is the only one.
def _check(context: typer.Context, as_json: Json = False) -> None:
    """Check the config file and list every error with its line; exit 78 if there is any.

    Example: `realize --config ./realize.toml config check`
    """
    settings = settings_of(context)
    path = str(settings.config_path)
    try:
        found = settings.load()
    except ConfigError as error:
        if not as_json:
            raise
        output.emit_json({"path": path, "ok": False, "problems": error.problems, "warnings": []})
        raise typer.Exit(exit_code(error)) from None
    if as_json:
        output.emit_json({"path": path, "ok": True, "problems": [], "warnings": _warnings(found)})
        return
    for line in _warnings(found):
        output.note(f"realize: warning: {line}")
    arenas = ", ".join(display(arena.name) for arena in found.arenas) or "none"
    peers = ", ".join(display(peer.name) for peer in found.peers) or "none"
    print(f"{display(path)}: good; arenas: {arenas}; peers: {peers}")


def _warnings(found: Config) -> list[str]:
    warnings = list(found.warnings)
    if not found.node.key.exists():
        warnings.append(f"{found.node.key}: there is no identity yet; `realize init` makes it")
    warnings += [f"{key}: accepted, but without effect in this version" for key in deferred_keys(found)]
    return warnings
