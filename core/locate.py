"""From what a user typed to a path in an arena (spec 3 §Paths). Pure: no file is looked at."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.api import ArenaPath
from core.errors import PathInvalidError, PathNotFoundError
from core.paths import check_path, display, to_bytes


@dataclass(frozen=True, slots=True)
class Places:
    """Directories under which an arena is seen on this host: datadir, in the mount, overlay."""

    arena: str
    directories: tuple[bytes, ...]


def places_of(arena: str, directories: Sequence[Path | None]) -> Places:
    """Return the places of an arena, each also by its resolved name."""
    names: list[bytes] = []
    for directory in directories:
        if directory is not None:
            names += [os.fsencode(directory), os.path.realpath(os.fsencode(directory))]
    return Places(arena, tuple(dict.fromkeys(names)))


def nearest(wanted: str, known: Sequence[str]) -> str:
    """Return a hint that offers the nearest of the known names; "" when none is near."""
    close = difflib.get_close_matches(wanted, known, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(repr(display(name)) for name in close)}?" if close else ""


def locate(text: bytes, cwd: bytes, places: Sequence[Places], mount: Path | None) -> ArenaPath:
    """Map ``ARENA/PATH`` or a path on disk, relative to ``cwd``, to a path in an arena.

    A text that begins with an arena's name is that arena's; anything else is a path on disk.

    Raises:
        PathNotFoundError: neither; the hint offers arenas.
        PathInvalidError: a component is not valid.
    """
    names = [place.arena for place in places]
    looks_like_disk = text.startswith((b"/", b"./", b"../", b"~")) or text in (b".", b"..")
    if not looks_like_disk:
        found = _in_arena(text, names)
        if found is not None:
            return found
    path = os.path.normpath(os.path.join(cwd, os.path.expanduser(text)))
    for place in places:
        for directory in place.directories:
            if path == directory or path.startswith(directory + b"/"):
                return ArenaPath(place.arena, check_path(path[len(directory) :].strip(b"/")))
    if mount is not None and path == os.fsencode(mount):
        raise PathInvalidError(f"{display(text)} is the mount itself", hint="name an arena below it")
    first = text.split(b"/")[0].decode("utf-8", "surrogateescape")
    hint = nearest(first, names) or (
        f"arenas here: {', '.join(display(name) for name in names)}" if names else "no arena is configured"
    )
    raise PathNotFoundError(f"{display(text)} is in no arena", hint=hint)


def _in_arena(text: bytes, names: Sequence[str]) -> ArenaPath | None:
    stripped = text.rstrip(b"/")
    for name in sorted(names, key=len, reverse=True):
        encoded = to_bytes(name)
        if stripped == encoded:
            return ArenaPath(name)
        if text.startswith(encoded + b"/"):
            return ArenaPath(name, check_path(stripped[len(encoded) + 1 :]))
    return None
