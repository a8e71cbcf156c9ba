"""The values of a configuration. Immutable; all paths are absolute. Import them from `core.config`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.types import Mark


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a filesystem, 0 … 1."""

    fraction: float


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """Cache quota: the most to use and the least to leave, in bytes or as a share; None: no such limit."""

    max: int | Share | None = None
    leave: int | Share | None = None


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """``[node]``."""

    name: str
    key: Path
    listen: tuple[str, ...]
    mount: Path | None
    allow_other: bool
    socket: Path


@dataclass(frozen=True, slots=True)
class ArenaConfig:
    """One ``[[arena]]``. ``datadir`` None: a cache-only arena."""

    name: str
    workdir: Path
    datadir: Path | None = None
    mountpoint: Path | None = None
    mark: Mark = Mark.WATCH
    disk_usage: DiskUsage = DiskUsage()
    debounce_s: float = 0.3
    max_parallel_hashers: int = 4
    ignore: tuple[str, ...] = ()
    min_copies: int = 1


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """One ``[[peer]]``. ``address`` None: a deaf peer; ``arenas`` None: all; rates in bytes/s."""

    name: str
    cert_pem: str
    address: str | None = None
    arenas: tuple[str, ...] | None = None
    batch_rate_limit: int | None = None
    rate_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says instead of the file; None: nothing. Absolute paths."""

    mount: Path | None = None
    listen: tuple[str, ...] | None = None
    socket: Path | None = None
    metrics_addr: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration, from the file ``path``.

    ``overrides`` are in it already; whoever loads the file again passes them on. ``warnings`` are
    complete lines about what may be wrong for now.
    """

    path: Path
    node: NodeConfig
    cache_db: Path
    arenas: tuple[ArenaConfig, ...]
    peers: tuple[PeerConfig, ...]
    overrides: Overrides = Overrides()
    warnings: tuple[str, ...] = ()

    def with_warnings(self, warnings: Sequence[str]) -> Config:
        """Return the same configuration with these warnings."""
        return replace(self, warnings=tuple(warnings))
