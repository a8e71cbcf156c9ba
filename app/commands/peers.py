"""``peer``: the peers of the config, and their connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from app import output
from app.client import call
from app.commands.options import Json, settings_of
from app.commands.status import print_peers
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, PeerStatus

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the peer in the config.")]


def register(root: typer.Typer) -> None:
    """Add ``peer``."""
    group = typer.Typer(no_args_is_help=False, rich_markup_mode=None)
    group.command("list")(_list)
    group.command("connect")(_connect)
    group.command("disconnect")(_disconnect)
    root.add_typer(group, name="peer", help="List, connect and disconnect peers.")


def _list(context: typer.Context, as_json: Json = False) -> None:
    """List the peers with state, address, round-trip time, rates and arenas.

    Examples: `realize peer list`, `realize peer list --json`
    """

    async def work(api: Api) -> tuple[PeerStatus, ...]:
        return await api.peers()

    found = call(settings_of(context), work)
    if as_json:
        import msgspec

        output.emit_json({"peers": msgspec.to_builtins(found)})
    elif found:
        print_peers(found)
    else:
        output.note("no peer is configured; a [[peer]] section of the config adds one")


def _connect(context: typer.Context, name: _Name, as_json: Json = False) -> None:
    """Let a peer connect again, and dial it now if it has an address.

    Example: `realize peer connect server`
    """
    _change(context, name, as_json, lambda api: api.peer_connect(name))


def _disconnect(context: typer.Context, name: _Name, as_json: Json = False) -> None:
    """Close the connections with a peer and refuse it until `peer connect`.

    Example: `realize peer disconnect server`
    """
    _change(context, name, as_json, lambda api: api.peer_disconnect(name))


def _change(
    context: typer.Context, name: str, as_json: bool, change: Callable[[Api], Awaitable[None]]
) -> None:
    async def work(api: Api) -> PeerStatus | None:
        await change(api)
        return next((peer for peer in await api.peers() if peer.name == name), None)

    peer = call(settings_of(context), work)
    state = peer.state if peer is not None else "disconnected"
    if as_json:
        output.emit_json({"name": name, "state": state})
    else:
        print(f"{display(name)}: {state}")
