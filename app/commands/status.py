"""``status``: the whole state of the daemon, for people and for programs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, settings_of
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, ArenaStatus, PeerStatus, Status

PEER_GLYPHS = {"connected": "●", "connecting": "◐", "disconnected": "○", "disabled": "✖"}
PEER_STYLES = {"connected": "green", "connecting": "yellow", "disconnected": "dim", "disabled": "dim"}


def register(root: typer.Typer) -> None:
    """Add ``status``."""
    root.command("status")(_status)


def _status(
    context: typer.Context,
    wait_idle_s: Annotated[
        float | None,
        typer.Option(
            "--wait-idle",
            metavar="SECONDS",
            min=0,
            help="Return once nothing is left to hash, fetch or announce; exit 75 at the limit.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show arenas, peers and churten.

    Examples: `realize status`, `realize status --wait-idle 60 --json`
    """

    async def work(api: Api) -> Status:
        return await (api.status() if wait_idle_s is None else api.wait_idle(wait_idle_s))

    found = call(settings_of(context), work)
    if as_json:
        output.emit_json(_as_json(found))
    else:
        _print(found)


def _as_json(found: Status) -> dict[str, Any]:
    import msgspec

    value: dict[str, Any] = msgspec.to_builtins(found)
    return value


def _print(found: Status) -> None:
    doing = output.styled("idle", "green") if found.idle else display(found.waiting_for or "busy")
    print(f"{output.styled(display(found.name), 'bold')}  {doing}  {_dim(f'version {found.version}')}")
    print(f"{_dim('fingerprint')}  {found.fingerprint}")
    print(f"{_dim('mount')}        {display(found.mount) if found.mount else 'none'}")
    for sentence in found.health:
        print(output.styled(f"⚠ {display(sentence)}", "yellow"))
    if found.arenas:
        print()
        head = ("arena", "mark", "files", "size", "real", "cached", "online", "cache", "")
        output.table([_arena_row(arena) for arena in found.arenas], head=head, right=(2, 3, 4, 5, 6, 7))
    if found.peers:
        print()
        print_peers(found.peers)
    print()
    jobs = found.churten
    state = "running" if jobs.running else "stopped"
    print(f"churten {state}: {jobs.active} active, {jobs.queued} queued, {jobs.failed} failed")


def _dim(text: str) -> str:
    return output.styled(text, "dim")


def _arena_row(arena: ArenaStatus) -> list[str]:
    cache = words.human_bytes(arena.cache.used)
    if arena.cache.max is not None:
        cache += f" / {words.human_bytes(arena.cache.max)}"
    notes = [
        f"⚠ offline: {display(arena.offline)}" if arena.offline else "",
        f"{arena.hashing} to hash" if arena.hashing else "",
        f"⚠ {arena.conflicts} in conflict" if arena.conflicts else "",
        f"⏳ {arena.only_here} only here" if arena.only_here else "",
    ]
    counts = [str(arena.real), str(arena.cached), str(arena.online)]
    sums = [str(arena.files), words.human_bytes(arena.bytes)]
    joined = output.styled(", ".join(note for note in notes if note), "yellow")
    return [display(arena.name), arena.mark, *sums, *counts, cache, joined]


def print_peers(peers: tuple[PeerStatus, ...]) -> None:
    """Print peers as a table."""
    now_ns = time.time_ns()
    head = ("peer", "state", "address", "rtt", "down", "up", "arenas", "")
    output.table([_peer_row(peer, now_ns) for peer in peers], head=head, right=(3, 4, 5))


def _peer_row(peer: PeerStatus, now_ns: int) -> list[str]:
    state = output.styled(f"{PEER_GLYPHS[peer.state]} {peer.state}", PEER_STYLES[peer.state])
    rtt = f"{peer.rtt_ms:.1f} ms" if peer.rtt_ms is not None else ""
    rates = [words.human_rate(peer.rx_rate), words.human_rate(peer.tx_rate)]
    if peer.state != "connected":
        rates = ["", ""]
    notes = [display(peer.reason)] if peer.reason else []
    if peer.state == "disconnected" and peer.last_seen_ns:
        notes.append(f"seen {words.ago(peer.last_seen_ns, now_ns)}")
    address = display(peer.address) if peer.address else "dials us"
    arenas = ", ".join(display(arena) for arena in peer.arenas)
    return [display(peer.name), state, address, rtt, *rates, arenas, _dim("; ".join(notes))]
