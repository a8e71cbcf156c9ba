"""The text of a new config file: what is asked for, and the other keys as comments. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArenaText:
    """An arena of a new config; paths as they are to be written."""

    name: str
    workdir: str
    datadir: str


_NODE = """\
# Realize: this host, its arenas and its peers. `realize config check` says what is wrong with it.
# Relative paths are relative to this file; ~ is your home.

[node]
name = {name}
key = {key}  # this host's identity; keep it secret
{listen}
# mount = "~/realize"  # where every arena of every peer is seen; also: realize tui --mount DIR
"""

_LISTENING = "listen = {addresses}"
_DEAF = """# listen = ["0.0.0.0:9771"]  # accept peers; without it this host only dials"""

_ARENA = """
[[arena]]
name = {name}
workdir = {workdir}  # database and cached content
datadir = {datadir}  # the real files
# mark = "watch"  # watch: cache what is used; keep: hold a copy of everything; own: as real files
"""

_NO_ARENA = """
# An arena is a collection of files that peers share under one name. For each:
# [[arena]]
# name = "docs"
# workdir = "docs"  # database and cached content; made when missing
# datadir = "docs/data"  # the real files; must exist. Without it this host only caches
# mark = "watch"  # watch: cache what is used; keep: hold a copy of everything; own: as real files
"""

_PEERS = """
# For each other host: its name, where it listens, and what `realize id` prints there.
# [[peer]]
# name = "server"
# address = "server.local:9771"  # left out: it dials us
# cert_file = "server.pem"  # or cert = \"\"\"-----BEGIN CERTIFICATE-----…\"\"\"
# arenas = ["docs"]  # what it may see; left out: all
"""


def config_text(*, name: str, key: str, listen: Sequence[str], arenas: Sequence[ArenaText]) -> str:
    """Return a config file with these values.

    Raises:
        ValueError: a value cannot be written in TOML, whose text is Unicode.
    """
    addresses = ", ".join(_quoted(address) for address in listen)
    listening = _LISTENING.format(addresses=f"[{addresses}]") if listen else _DEAF
    text = _NODE.format(name=_quoted(name), key=_quoted(key), listen=listening)
    for arena in arenas:
        text += _ARENA.format(
            name=_quoted(arena.name), workdir=_quoted(arena.workdir), datadir=_quoted(arena.datadir)
        )
    return text + ("" if arenas else _NO_ARENA) + _PEERS


def _quoted(text: str) -> str:
    """Return a TOML string; the escapes of JSON are valid in TOML, which also wants DEL escaped."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!a} is not UTF-8, which the config file needs") from None
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
