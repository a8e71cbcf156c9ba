"""``doctor``: checks with a fix each."""

from __future__ import annotations

from dataclasses import asdict

import typer

from app import output
from app.commands.options import Json, settings_of
from core.paths import display


def register(root: typer.Typer) -> None:
    """Add ``doctor``."""
    root.command("doctor", short_help="Check machine, config and daemon, with fixes.")(_doctor)


def _doctor(context: typer.Context, as_json: Json = False) -> None:
    """Check the machine, the config and the daemon, with a fix for what is wrong; exit 1 if anything is.

    Example: `realize doctor`
    """
    from app.doctor import examine

    found = examine(settings_of(context))
    failed = [check for check in found if not check.ok]
    if as_json:
        output.emit_json({"ok": not failed, "checks": [asdict(check) for check in found]})
    else:
        for check in found:
            mark = output.styled("✔", "green") if check.ok else output.styled("✖", "red")
            print(f"{mark} {display(check.check)}: {display(check.detail)}")
            if not check.ok and check.fix:
                print(f"  → {display(check.fix)}")
        print(f"{len(failed)} of {len(found)} checks failed" if failed else f"all {len(found)} checks passed")
    if failed:
        raise typer.Exit(1)
