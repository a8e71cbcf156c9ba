"""Addresses as the config and the command line write them: ``host:port``. Pure."""

from __future__ import annotations

from typing import NamedTuple

from core.errors import ConfigError


class Address(NamedTuple):
    """A host name or numeric address without brackets, ``""`` for any, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Write it as it is read, IPv6 addresses in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Return the parts of ``host:port``, ``[v6]:port`` or ``:port``.

    Raises:
        ConfigError: it is none of these.
    """
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = host[1:-1] if bracketed else host
    good_port = port.isascii() and port.isdigit() and int(port) <= 65535
    if not colon or not good_port or (":" in plain) != bracketed or any(c in " []/" for c in plain):
        raise ConfigError(
            [f"{text!r} is not an address"], hint='write "host:port", or "[::1]:9771" for an IPv6 address'
        )
    return Address(plain, int(port))
