"""Network addresses as text: ``host:port`` and ``[::1]:9771``. Pure; resolves nothing."""

from __future__ import annotations

ACCEPTED = '"host:port", like "server.local:9771", "0.0.0.0:9771" or "[::1]:9771"'

_MAX_PORT = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Return host (without brackets) and port of ``text``; port 0 is allowed.

    Raises:
        ValueError: it is no such address; the text says why.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or port_text.endswith("]"):
        raise ValueError("the port is missing")
    if not (port_text.isascii() and port_text.isdigit()):
        raise ValueError(f"{port_text!r} is not a port")
    port = int(port_text[:6])
    if port > _MAX_PORT:
        raise ValueError(f"port {port_text} is above {_MAX_PORT}")
    return _host(host), port


def _host(host: str) -> str:
    if host.startswith("["):
        if not host.endswith("]") or ":" not in host:
            raise ValueError("not an IPv6 address in brackets")
        return host[1:-1]
    if ":" in host:
        raise ValueError("an IPv6 address needs brackets")
    if not host:
        raise ValueError("the host is missing")
    if not host.isprintable() or any(char.isspace() or char in "/[]@" for char in host):
        raise ValueError(f"{host!r} is not a host")
    return host
