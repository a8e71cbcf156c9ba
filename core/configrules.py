"""Rules of the config that concern several keys, or the filesystem (spec 3 §Config file).

Everything here only reads. RACE: directories may come and go after the check; the daemon meets that
again when it opens them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from core.certificates import check_certificate, public_key
from core.configfile import Section
from core.configvalues import ArenaConfig, Config
from core.paths import display

OWN_DIRECTORIES = ("blobs", "work")
"""What a workdir holds besides ``arena.db``; nothing of the user's may lie in there."""


def check_rules(
    config: Config,
    node: Section,
    cache: Section,
    arenas: Sequence[Section],
    peers: Sequence[Section],
    *,
    offline_ok: bool,
) -> None:
    """Note in the sections what is wrong with ``config`` as a whole."""
    _check_arena_names(config, arenas)
    _check_peers(config, peers)
    for section, arena in zip(arenas, config.arenas, strict=True):
        _check_arena(section, arena, offline_ok=offline_ok)
        _check_overlay(config, section, arena)
    _check_directories(config, arenas)
    _check_mount(config, node, arenas)
    _check_own_files(config, node, cache)


def _check_arena_names(config: Config, sections: Sequence[Section]) -> None:
    names = [arena.name for arena in config.arenas]
    for index, (section, name) in enumerate(zip(sections, names, strict=True)):
        if not name:
            continue
        if name in names[:index]:
            section.bad("name", f"arena {index + 1} has the name of another arena", "a name of its own")
        for other in names:
            if name.startswith(other + "/") and other:
                what = f'lies inside the arena "{display(other)}"'
                section.bad("name", what, "a name that is not below another arena's")


def _check_peers(config: Config, sections: Sequence[Section]) -> None:
    names = [peer.name for peer in config.peers]
    owners: dict[bytes, str] = {}
    own = _own_public_key(config)
    for index, (section, peer) in enumerate(zip(sections, config.peers, strict=True)):
        if peer.name and peer.name in names[:index]:
            section.bad("name", "is the name of another peer", "a name of its own")
        if not peer.cert_pem:
            continue
        key = "cert" if "cert" in section else "cert_file"
        public = public_key(peer.cert_pem)
        if public == own:
            section.bad(key, "is this host's own certificate", "what `realize id` prints on that host")
        elif public in owners:
            what = f'is also the certificate of the peer "{display(owners[public])}"'
            section.bad(key, what, "each peer's own certificate")
        owners.setdefault(public, peer.name)


def _own_public_key(config: Config) -> bytes | None:
    try:
        return public_key(check_certificate(config.node.key.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None  # not made yet, or damaged: `net.identity` says so where the key is needed


def _check_arena(section: Section, arena: ArenaConfig, *, offline_ok: bool) -> None:
    """Check an arena's directories against each other and the disk."""
    if os.path.exists(arena.workdir) and not os.path.isdir(arena.workdir):
        section.bad("workdir", "is not a directory", "a directory, which is created when missing")
    if arena.datadir is None:
        return
    is_there = _datadir_is_there(section, arena, offline_ok=offline_ok)
    if "workdir" not in section:
        return
    work, data = _real(arena.workdir), _real(arena.datadir)
    if _is_inside(work, data):
        same = "is the datadir" if work == data else "lies inside the datadir"
        section.bad("workdir", same, "a directory beside or above the datadir")
    for name in OWN_DIRECTORIES:
        if _is_inside(data, work / name):
            section.bad("datadir", f"lies inside {name}/ of the workdir", "a directory of its own")
    if is_there and os.stat(arena.datadir).st_dev != _device(work):
        # LIMIT: two mounts of one filesystem have one device number; they are found at the first rename.
        section.bad("workdir", f"is not on the filesystem of the datadir {_name(arena.datadir)}", "the same")


def _datadir_is_there(section: Section, arena: ArenaConfig, *, offline_ok: bool) -> bool:
    datadir = arena.datadir
    assert datadir is not None
    try:
        os.stat(datadir)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        why = "does not exist" if missing else f"cannot be used: {error.strerror}"
        if offline_ok and (arena.workdir / "arena.db").exists():
            section.warn("datadir", f"{_name(datadir)} {why}; the arena is offline until it is back")
        else:
            what = f"the directory {_name(datadir)} {why}"
            section.bad("datadir", what, "an existing directory; left out: the arena only caches")
        return False
    if not os.path.isdir(datadir):
        section.bad("datadir", f"{_name(datadir)} is not a directory", "an existing directory")
        return False
    return True


def _check_overlay(config: Config, section: Section, arena: ArenaConfig) -> None:
    if arena.mountpoint is None:
        return
    needs = "with a datadir and [node].mount"
    if arena.datadir is None and "datadir" not in section:
        section.bad("mountpoint", "the arena has no datadir to lay it over", needs)
    if config.node.mount is None:
        section.bad("mountpoint", "[node] has no mount", needs)
    elif _is_inside(_mount(arena.mountpoint), _mount(config.node.mount)):
        section.bad("mountpoint", f"lies inside the mount {_name(config.node.mount)}", "a place outside")


def _check_directories(config: Config, sections: Sequence[Section]) -> None:
    """Check that arenas do not share or contain each other's directories."""
    rows = [
        (section, arena)
        for section, arena in zip(sections, config.arenas, strict=True)
        if "workdir" in section
    ]
    for index, (section, arena) in enumerate(rows):
        for other_index, (_, other) in enumerate(rows):
            if other_index == index:
                continue
            title = f'the arena "{display(other.name)}"'
            first = other_index < index
            if first and _real(arena.workdir) == _real(other.workdir):
                section.bad("workdir", f"is also the workdir of {title}", "a directory of its own")
            if first and arena.mountpoint is not None and arena.mountpoint == other.mountpoint:
                section.bad("mountpoint", f"is also the mountpoint of {title}", "a place of its own")
            if other.datadir is None:
                continue
            if _is_inside(_real(arena.workdir), _real(other.datadir)):
                section.bad("workdir", f"lies inside the datadir of {title}", "a directory outside")
            if first and arena.datadir is not None and _real(arena.datadir) == _real(other.datadir):
                section.bad("datadir", f"is also the datadir of {title}", "a directory of its own")


def _check_mount(config: Config, node: Section, sections: Sequence[Section]) -> None:
    """Check that the mount is apart from all that the daemon reads and writes itself.

    INVARIANT: the engine never opens a path under its own mount; it would wait for itself.
    """
    if config.node.mount is None:
        return
    mount = _mount(config.node.mount)
    shown = _name(config.node.mount)
    for section, arena in zip(sections, config.arenas, strict=True):
        for key, directory in (("workdir", arena.workdir), ("datadir", arena.datadir)):
            if directory is not None and key in section and _is_inside(_mount(directory), mount):
                section.bad(key, f"lies inside the mount {shown}", "a directory outside")
        if arena.datadir is not None and _mount(arena.datadir) in mount.parents:
            what = f'{shown} lies inside the datadir of the arena "{display(arena.name)}"'
            node.bad("mount", what, "a directory outside every datadir")
        for name in OWN_DIRECTORIES:
            if _is_inside(mount, _mount(arena.workdir) / name):
                node.bad("mount", f"{shown} lies inside {name}/ of a workdir", "a directory of its own")


def _check_own_files(config: Config, node: Section, cache: Section) -> None:
    for section, key, path in ((node, "key", config.node.key), (cache, "db", config.cache_db)):
        where = _mount(path)
        if config.node.mount is not None and _is_inside(where, _mount(config.node.mount)):
            section.bad(key, f"{_name(path)} lies inside the mount", "a file outside")
        for arena in config.arenas:
            if arena.datadir is not None and _is_inside(where, _real(arena.datadir)):
                what = f'{_name(path)} lies inside the datadir of the arena "{display(arena.name)}"'
                section.bad(key, f"{what}, where peers would see it", "a file outside every datadir")


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _mount(path: Path) -> Path:
    """Return the path with its parents resolved, itself untouched: it may be a mount that hangs."""
    return _real(path.parent) / path.name


def _is_inside(path: Path, directory: Path) -> bool:
    return path == directory or directory in path.parents


def _device(path: Path) -> int | None:
    """Return the device that a directory lies on, or will lie on when it is made."""
    for candidate in (path, *path.parents):
        try:
            return os.stat(candidate).st_dev
        except OSError:
            continue
    return None


def _name(path: Path) -> str:
    return display(str(path))
