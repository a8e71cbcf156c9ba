"""Turns the sections of a config file into values, key by key (spec 3 §Config file).

Wrong values are noted with their line and replaced by defaults, so that one pass finds them all.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from core import units
from core.addresses import ACCEPTED as ADDRESS
from core.addresses import parse_address
from core.certificates import check_certificate
from core.configfile import Section, nearest
from core.configvalues import ArenaConfig, DiskUsage, NodeConfig, Overrides, PeerConfig, Share
from core.errors import NameTooLongError, PathInvalidError
from core.paths import check_path
from core.types import Mark

T = TypeVar("T")

KEY_NAME = "identity.pem"

_DEBOUNCE_S = 0.3
_MAX_HASHERS = 256
_MAX_COPIES = 1000
_NAME = 'a name without "/", "," and control characters, at most 255 bytes'
_ARENA_NAME = 'names joined by "/", like "docs" or "photos/2024"; no empty name, "." or ".."'
_PATH = "a path, absolute or relative to the config file; ~ is expanded"


def default_socket(env: Mapping[str, str]) -> Path:
    """Return the control socket of a config that names none; its directory is one user's alone."""
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime):
        return Path(runtime) / "realize" / "control.sock"
    return Path(tempfile.gettempdir()) / f"realize-{os.getuid()}" / "control.sock"


class Reader:
    """Reads the sections of the file ``path``."""

    def __init__(self, path: Path) -> None:
        """Read for a file, to whose directory paths are relative."""
        self._directory = path.parent

    def node(self, section: Section, env: Mapping[str, str], overrides: Overrides) -> NodeConfig:
        """Return ``[node]``, with what the command line says instead."""
        name = self._name(section) or socket.gethostname() or "host"
        key = self.path(section, "key")
        listen = self._addresses(section, "listen")
        mount = self.path(section, "mount")
        allow_other = section.flag("allow_other", default=False)
        control = self.path(section, "socket")
        section.end()
        return NodeConfig(
            name=name,
            key=key or self._directory / KEY_NAME,
            listen=listen if overrides.listen is None else overrides.listen,
            mount=overrides.mount or mount,
            allow_other=allow_other,
            socket=overrides.socket or control or default_socket(env),
        )

    def arena(self, section: Section) -> ArenaConfig:
        """Return one ``[[arena]]``."""
        name = self._parsed_text(section, "name", _arena_name, _ARENA_NAME)
        workdir = self.path(section, "workdir")
        if "name" not in section:
            section.missing("name", _ARENA_NAME)
        if "workdir" not in section:
            section.missing("workdir", "the directory for the arena's database and cache; it is created")
        debounce = section.parsed("debounce", units.parse_duration, units.DURATION)
        arena = ArenaConfig(
            name=name or "",
            workdir=workdir or self._directory / f".no-workdir-{section.place[-1]}",  # wrong, and noted
            datadir=self.path(section, "datadir"),
            mountpoint=self.path(section, "mountpoint"),
            mark=self._parsed_text(section, "mark", _mark, ", ".join(f'"{mark}"' for mark in Mark))
            or Mark.WATCH,
            disk_usage=self._disk_usage(section.table("disk_usage")),
            debounce_s=_DEBOUNCE_S if debounce is None else debounce,
            max_parallel_hashers=section.count("max_parallel_hashers", 4, highest=_MAX_HASHERS),
            ignore=self._ignore(section),
            min_copies=section.count("min_copies", 1, highest=_MAX_COPIES),
        )
        section.end()
        return arena

    def peer(self, section: Section, arenas: set[str]) -> PeerConfig:
        """Return one ``[[peer]]``, which may see some of ``arenas``."""
        name = self._name(section)
        if "name" not in section:
            section.missing("name", _NAME)
        peer = PeerConfig(
            name=name or "",
            cert_pem=self._certificate(section),
            address=self._parsed_text(section, "address", _dialled, ADDRESS),
            arenas=self._visible(section, arenas),
            batch_rate_limit=section.parsed("batch_rate_limit", units.parse_rate, units.RATE),
            rate_limit=section.parsed("rate_limit", units.parse_rate, units.RATE),
        )
        section.end()
        return peer

    def path(self, section: Section, key: str) -> Path | None:
        """Return a path made absolute."""
        text = section.text(key, _PATH)
        if text is None:
            return None
        expanded = os.path.expanduser(text)
        if "\0" in text or expanded.startswith("~"):
            section.bad(key, "holds a NUL" if "\0" in text else "names an unknown user's home", _PATH)
            return None
        return self._directory / expanded

    def _parsed_text(self, section: Section, key: str, parse: Callable[[str], T], accepted: str) -> T | None:
        text = section.text(key, accepted)
        return None if text is None else section.parsed(key, lambda _: parse(text), accepted)

    def _name(self, section: Section) -> str | None:
        return self._parsed_text(section, "name", _host_name, _NAME)

    def _addresses(self, section: Section, key: str) -> tuple[str, ...]:
        accepted = f"a list of addresses {ADDRESS}; [] for a host that only dials"
        found = section.texts(key, accepted) or []
        for index, text in found:
            try:
                parse_address(text)
            except ValueError as error:
                section.bad(key, str(error), ADDRESS, index=index)
        return tuple(text for _, text in found)

    def _disk_usage(self, section: Section) -> DiskUsage:
        accepted = f"{units.SIZE}, or {units.SHARE}"
        limits = [section.parsed(key, _size_or_share, accepted) for key in ("max", "leave")]
        section.end()
        return DiskUsage(*limits)

    def _ignore(self, section: Section) -> tuple[str, ...]:
        found = section.texts("ignore", 'a list of gitignore patterns, like ["*.tmp", "/build/"]')
        if not found:
            return ()
        from pathspec import GitIgnoreSpec  # costs start-up time, and few configs need it

        for index, pattern in found:
            try:
                GitIgnoreSpec.from_lines([pattern])
            except ValueError:
                section.bad("ignore", "is not a gitignore pattern", 'like "*.tmp" or "/build/"', index=index)
        return tuple(pattern for _, pattern in found)

    def _certificate(self, section: Section) -> str:
        """Return the PEM of the peer's certificate from ``cert`` or ``cert_file``."""
        accepted = "what `realize id` prints on that host"
        pem, path = section.text("cert", accepted), self.path(section, "cert_file")
        if "cert" in section and "cert_file" in section:
            section.bad("cert_file", "is given beside cert", "one of cert and cert_file")
        elif "cert" not in section and "cert_file" not in section:
            section.missing("cert", f"{accepted}, or cert_file with the path of a file that holds it")
        key = "cert" if pem is not None else "cert_file"
        try:
            if pem is None and path is not None:
                pem = path.read_text(encoding="utf-8")
            if pem is None:
                return ""
            if "PRIVATE KEY" in pem:
                section.warn(key, "holds a private key too; a peer's certificate is enough")
            return check_certificate(pem)
        except OSError as error:
            section.bad(key, f"cannot be read: {error.strerror}: {path}", "the path of a certificate file")
        except ValueError as error:
            section.bad(key, str(error), accepted)
        return ""

    def _visible(self, section: Section, arenas: set[str]) -> tuple[str, ...] | None:
        found = section.texts("arenas", "a list of names of arenas; left out: all")
        if found is None:
            return None
        for index, name in found:
            if name not in arenas:
                known = ", ".join(sorted(arenas)) or "none is configured"
                section.bad("arenas", f"there is no such arena{nearest(name, arenas)}", known, index=index)
        return tuple(dict.fromkeys(name for _, name in found))


def _host_name(text: str) -> str:
    if not text.isprintable() or any(char in text for char in "/,") or text.strip() != text:
        raise ValueError("not a usable name")
    if len(text.encode()) > 255 or text in (".", ".."):
        raise ValueError("not a usable name")
    return text


def _arena_name(text: str) -> str:
    try:
        check_path(text.encode())
    except (PathInvalidError, NameTooLongError) as error:
        raise ValueError(str(error)) from None
    return text


def _mark(text: str) -> Mark:
    try:
        return Mark(text)
    except ValueError:
        raise ValueError(f"not a mark{nearest(text, list(Mark))}") from None


def _dialled(text: str) -> str:
    if parse_address(text)[1] == 0:
        raise ValueError("port 0 cannot be dialled")
    return text


def _size_or_share(value: object) -> int | Share:
    if isinstance(value, str) and value.strip().endswith("%"):
        return Share(units.parse_share(value))
    return units.parse_size(value)
