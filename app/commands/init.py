"""``init``: writes a config, an identity and the directories."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app import output
from app.commands.options import Json, settings_of
from app.settings import Settings
from core.addresses import ACCEPTED, parse_address
from core.config import FILE_NAME, KEY_NAME, load
from core.configtext import ArenaText, config_text
from core.errors import ConfigError, PathError, PathExistsError, StoreError, UsageError
from core.paths import check_path, display


def register(root: typer.Typer) -> None:
    """Add ``init``."""
    root.command("init", short_help="Set up this host: config, identity, directories.")(_init)


@dataclass(frozen=True)
class _Plan:
    """What is to be made. ``root`` is the directory of everything that is not elsewhere."""

    config: Path
    key: Path
    root: Path
    name: str
    listen: tuple[str, ...]
    arenas: tuple[_Arena, ...]


@dataclass(frozen=True)
class _Arena:
    name: str
    workdir: Path
    datadir: Path


def _init(
    context: typer.Context,
    directory: Annotated[
        Path | None, typer.Option("--dir", metavar="DIR", help="Where.  [default: the config's directory]")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Label of this host.  [default: its host name]")
    ] = None,
    arena: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=DATADIR]",
            help="An arena, and the directory with its files; may be repeated.  [default: DIR/NAME/data]",
        ),
    ] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(metavar="ADDR", help="Accept peers here, like 0.0.0.0:9771; may be repeated."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set up this host: the config file, its identity, and the directories of the arenas.

    Nothing is ever overwritten. Where a config is there and only the identity is missing, `init` without
    other options makes the identity and the directories that the config names.

    Examples: `realize init --arena docs=~/Documents --listen 0.0.0.0:9771`,
    `realize init --dir /tmp/try --name a --arena docs`
    """
    settings = settings_of(context)
    plan = _plan(settings, directory, name, arena or [], listen or [])
    has_options = bool(name or arena or listen)
    made = _complete(plan.config) if plan.config.exists() and not has_options else _make(plan)
    if as_json:
        output.emit_json({"config": str(plan.config), "made": [str(path) for path in made]})
        return
    for path in made:
        print(f"made {display(str(path))}")
    print(_next_steps(plan, is_default=plan.config == Settings().config_path))


def _plan(
    settings: Settings, directory: Path | None, name: str | None, arenas: list[str], listen: list[str]
) -> _Plan:
    """Return what is to be made, checked as far as that needs no disk."""
    if directory is not None and settings.config is None:
        config = Path(os.path.abspath(directory.expanduser())) / FILE_NAME
    else:
        config = settings.config_path
    root = Path(os.path.abspath(directory.expanduser())) if directory is not None else config.parent
    for address in listen:
        try:
            parse_address(address)
        except ValueError as error:
            raise UsageError(f"--listen {address}: {error}", hint=f"accepted: {ACCEPTED}") from None
    _check_names([text.partition("=")[0] for text in arenas])
    return _Plan(
        config=config,
        key=root / KEY_NAME,
        root=root,
        name=name or socket.gethostname() or "host",
        listen=tuple(listen),
        arenas=tuple(_arena(text, root) for text in arenas),
    )


def _check_names(names: list[str]) -> None:
    for index, name in enumerate(names):
        for other in names[:index]:
            if name == other:
                raise UsageError(f"--arena {name}: given twice")
            if name.startswith(f"{other}/") or other.startswith(f"{name}/"):
                raise UsageError(f"--arena {name}: one of it and {other} would lie inside the other")


def _arena(text: str, root: Path) -> _Arena:
    """Return the arena of ``NAME`` or ``NAME=DATADIR``."""
    name, has_datadir, datadir_text = text.partition("=")
    try:
        check_path(os.fsencode(name))
        name.encode()
    except (PathError, UnicodeEncodeError):
        name = ""
    if not name or (has_datadir and not datadir_text):
        hint = "NAME or NAME=DATADIR, like docs or docs=~/Documents"
        raise UsageError(f"--arena {text}: not an arena", hint=hint)
    if not has_datadir:
        return _Arena(name, root / name, root / name / "data")
    datadir = Path(os.path.abspath(os.path.expanduser(datadir_text)))
    return _Arena(name, datadir.parent / f".{name.replace('/', '-')}.realize", datadir)


def _make(plan: _Plan) -> list[Path]:
    """Make everything and return the paths made.

    Raises:
        PathExistsError: a file is there already; nothing was made.
        UsageError: the options do not go together; no file was left.
        StoreError: the disk refuses.
    """
    for path in (plan.config, plan.key):
        if os.path.lexists(path):
            hint = "init overwrites nothing; edit that file, or choose another place with --dir"
            raise PathExistsError(f"{path}: there is a file already", hint=hint)
    from net import identity  # costs start-up time that `--help` need not pay

    directories = [plan.config.parent, plan.root]
    directories += [path for arena in plan.arenas for path in (arena.workdir, arena.datadir)]
    made = [path for directory in directories for path in _make_directory(directory)]
    files: list[Path] = []
    try:
        identity.create(plan.key)
        files.append(plan.key)
        _write_new(plan.config, _text(plan))
        files.append(plan.config)
        load(plan.config)
    except ConfigError as error:
        _unlink(files)
        raise UsageError("; ".join(_options_text(plan, line) for line in error.problems)) from None
    except BaseException:
        _unlink(files)
        raise
    return [plan.config, plan.key, *made]


def _options_text(plan: _Plan, problem: str) -> str:
    """Return a problem of the config just written, without the file and line that were taken back."""
    return problem.removeprefix(f"{display(str(plan.config))}:").partition(": ")[2] or problem


def _text(plan: _Plan) -> str:
    arenas = [
        ArenaText(arena.name, _relative(arena.workdir, plan), _relative(arena.datadir, plan))
        for arena in plan.arenas
    ]
    try:
        return config_text(name=plan.name, key=_relative(plan.key, plan), listen=plan.listen, arenas=arenas)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _relative(path: Path, plan: _Plan) -> str:
    """Return a path as the config should have it: relative where it lies beside the file."""
    base = plan.config.parent
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _complete(config: Path) -> list[Path]:
    """Make what an existing config names and lacks: the identity and the workdirs.

    Raises:
        PathExistsError: nothing is lacking.
        ConfigError: the config is wrong.
    """
    found = load(config)
    if found.node.key.exists():
        hint = "init overwrites nothing; edit that file, or choose another place with --dir"
        raise PathExistsError(f"{config}: there is a file already", hint=hint)
    from net import identity

    made = [path for arena in found.arenas for path in _make_directory(arena.workdir)]
    made += _make_directory(found.node.key.parent)
    identity.create(found.node.key)
    return [found.node.key, *made]


def _make_directory(path: Path) -> list[Path]:
    """Make a directory and its parents; returns it in a list if it was missing."""
    if path.is_dir():
        return []
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot be made: {error.strerror}") from None
    return [path]


def _write_new(path: Path, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise PathExistsError(f"{path}: there is a file already") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def _unlink(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _next_steps(plan: _Plan, *, is_default: bool) -> str:
    command = "realize" if is_default else f"realize --config {display(str(plan.config))}"
    lines = [
        "",
        "Next:",
        f"  1. {command} id              print this host's certificate",
        "  2. put it into a [[peer]] section on each other host, and theirs into",
        f"     {display(str(plan.config))}",
        f"  3. {command} config check    see whether all is right",
        f"  4. {command} tui --mount ~/realize",
    ]
    if not plan.listen:
        lines.append("This host dials its peers and accepts none; set [node].listen to change that.")
    return "\n".join(lines)
