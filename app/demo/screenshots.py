"""Pictures of the dashboard, taken from the demo household in a state that shows something of everything."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from app.demo import checks, samples
from app.demo.entry import DOCUMENTS, MEDIA, build
from app.demo.household import Household, Peer, wait_until

TIMEOUT_S = 30.0
FILM_BYTES = 16 * 1024 * 1024


def take(out_dir: Path) -> list[Path]:
    """Start the demo household, use it a little, save pictures in ``out_dir``; returns their paths."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with Household() as household:
        laptop, server = build(household, FILM_BYTES)
        household.start()
        household.wait_connected()
        _use(laptop, server)
        return asyncio.run(_capture(laptop, out_dir))


def _use(laptop: Peer, server: Peer) -> None:
    """Bring the laptop into a state with files that are online, partial, cached, kept and real."""
    documents, media = laptop.view(DOCUMENTS), laptop.view(MEDIA)
    films = media / "films/holiday.mkv"
    wait_until(lambda: checks.lists(documents, samples.documents()), TIMEOUT_S, "the documents")
    wait_until(lambda: films.exists() and checks.attribute(films, "version") != "", TIMEOUT_S, "the film")
    server.wait_idle()
    laptop.command("mark", "set", "own", f"{DOCUMENTS}/letters/2024")
    laptop.command("mark", "set", "keep", f"{MEDIA}/albums/harbour", f"{DOCUMENTS}/notes")
    laptop.command("get", f"{MEDIA}/drawings")
    checks.read_range(films, FILM_BYTES // 2, 64 * 1024)
    (laptop.datadir(DOCUMENTS) / "notes").mkdir(parents=True, exist_ok=True)
    (laptop.datadir(DOCUMENTS) / "notes/Packing.md").write_bytes(samples.note("Packing"))
    wait_until((server.view(DOCUMENTS) / "notes/Packing.md").exists, TIMEOUT_S, "the laptop's own note")
    laptop.wait_idle()


async def _capture(laptop: Peer, out_dir: Path) -> list[Path]:
    os.environ.update(laptop.environment())
    from app.bridge import Bridge  # loaded after the environment says where the dashboard's state goes
    from app.tui.attach import connect
    from app.tui.screenshot import capture
    from net.control import ControlClient

    loop, api, title = connect(ControlClient(laptop.socket))
    try:
        return await capture(Bridge(loop, api), out_dir, title=title)
    finally:
        loop.stop()
        loop.join(5.0)
