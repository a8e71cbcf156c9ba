"""``id``: what other hosts need to know this one."""

from __future__ import annotations

from typing import Annotated

import typer

from app import output
from app.commands.options import Json, settings_of
from core.config import key_of


def register(root: typer.Typer) -> None:
    """Add ``id``."""
    root.command("id", short_help="Print this host's certificate, for its peers.")(_id)


def _id(
    context: typer.Context,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="The short fingerprint, for reading aloud.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print this host's certificate, which goes into the config of its peers.

    Examples: `realize id > laptop.pem`, `realize id --fingerprint`
    """
    from net import identity

    own = identity.load(key_of(settings_of(context).config_path))
    short = identity.short_form(own.fingerprint)
    if as_json:
        output.emit_json({"fingerprint": short, "certificate": own.cert_pem})
    else:
        print(short if fingerprint else own.cert_pem.rstrip("\n"))
