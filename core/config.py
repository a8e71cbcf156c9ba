"""The configuration of a host (spec 3 §Config file): where it is found, and how it is loaded.

`load` reports all problems of a file at once. Its values are in `core.configvalues`, the reading of the
sections in `core.configreader`, the rules that concern several keys or the filesystem in
`core.configrules`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from core.configfile import Problems, Section, read_toml
from core.configreader import KEY_NAME, Reader, default_socket
from core.configrules import check_rules
from core.configvalues import (
    ArenaConfig,
    Config,
    DiskUsage,
    NodeConfig,
    Overrides,
    PeerConfig,
    Share,
)

__all__ = [
    "FILE_NAME",
    "KEY_NAME",
    "ArenaConfig",
    "Config",
    "DiskUsage",
    "NodeConfig",
    "Overrides",
    "PeerConfig",
    "Share",
    "default_socket",
    "deferred_keys",
    "find",
    "key_of",
    "load",
    "socket_of",
]


FILE_NAME = "realize.toml"


def find(explicit: Path | None, env: Mapping[str, str]) -> Path:
    """Return the path of the config file, which may not exist: ``--config``, environment, default."""
    if explicit is not None:
        return Path(os.path.abspath(explicit))
    if env.get("REALIZE_CONFIG"):
        return Path(os.path.abspath(os.path.expanduser(env["REALIZE_CONFIG"])))
    home = env.get("XDG_CONFIG_HOME", "")
    # The XDG base directory specification has relative values ignored.
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~/.config"))
    return base / "realize" / FILE_NAME


def socket_of(path: Path, env: Mapping[str, str]) -> Path:
    """Return the control socket that a config file names, whatever else may be wrong in it.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or its socket is wrong.
    """
    return _node_path(path, "socket") or default_socket(env)


def key_of(path: Path) -> Path:
    """Return the identity file that a config file names, whatever else may be wrong in it.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or its key is wrong.
    """
    return _node_path(path, "key") or path.parent / KEY_NAME


def _node_path(path: Path, key: str) -> Path | None:
    data, lines = read_toml(path)
    problems = Problems(path, lines)
    node = Section(problems, (), "", data).table("node")
    found = Reader(path).path(node, key)
    problems.raise_if_any()
    return found


def load(
    path: Path,
    *,
    env: Mapping[str, str] | None = None,
    offline_ok: bool = False,
    overrides: Overrides | None = None,
) -> Config:
    """Return the configuration in a file, checked.

    Args:
        path: the file.
        env: the environment, `os.environ` by default.
        offline_ok: a datadir that is missing, though its arena was used before, is a warning and not an
            error; for the daemon, which keeps such an arena offline.
        overrides: what the command line says instead of the file; checked like it.

    Raises:
        ConfigError: all that is wrong, a line each.
    """
    path = Path(os.path.abspath(path))
    data, lines = read_toml(path)
    problems = Problems(path, lines)
    reader = Reader(path)
    root = Section(problems, (), "", data)
    node_section = root.table("node")
    cache_section = root.table("cache")
    arena_sections = root.tables("arena")
    peer_sections = root.tables("peer")
    root.end()
    overrides = overrides or Overrides()
    node = reader.node(node_section, os.environ if env is None else env, overrides)
    cache_db = reader.path(cache_section, "db") or path.parent / "cache.db"
    cache_section.end()
    arenas = [(section, reader.arena(section)) for section in arena_sections]
    names = {arena.name for _, arena in arenas}
    peers = [(section, reader.peer(section, names)) for section in peer_sections]
    config = Config(
        path=path,
        node=node,
        cache_db=cache_db,
        arenas=tuple(arena for _, arena in arenas),
        peers=tuple(peer for _, peer in peers),
        overrides=overrides,
    )
    check_rules(config, node_section, cache_section, arena_sections, peer_sections, offline_ok=offline_ok)
    problems.raise_if_any()
    return config.with_warnings(problems.warnings)


def deferred_keys(config: Config) -> tuple[str, ...]:
    """Return the keys in use that are accepted but have no effect yet, as in ``arena "docs": mountpoint``."""
    found = ["--metrics-addr"] if config.overrides.metrics_addr is not None else []
    for arena in config.arenas:
        if arena.mountpoint is not None:
            found.append(f'arena "{arena.name}": mountpoint')
    for peer in config.peers:
        limits = {"batch_rate_limit": peer.batch_rate_limit, "rate_limit": peer.rate_limit}
        found += [f'peer "{peer.name}": {key}' for key, limit in limits.items() if limit is not None]
    return tuple(found)
