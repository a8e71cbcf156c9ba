"""Pictures of the dashboard, taken from the demo household in a state that shows something of everything."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from blake3 import blake3

from app.demo import checks, samples
from app.demo.entry import DOCUMENTS, MEDIA, build
from app.demo.household import Household, Peer, wait_until

_FONT_FACE = re.compile(r"\s*@font-face \{[^}]*\}")
"""Fonts that a picture would fetch from elsewhere; the reader's own monospaced one does."""

MADE_FROM = "made-from.b3"
"""Names the sources that the pictures beside it show."""

TIMEOUT_S = 30.0
FILM_BYTES = 16 * 1024 * 1024
NEW_FILM_BYTES = 192 * 1024 * 1024
NEW_FILMS = ("harvest.mkv", "regatta.mkv")
AT_WORK_S, AT_REST_S = 0.015, 0.2
TURNS_A_NOTE = 8


def take(out_dir: Path) -> list[Path]:
    """Start the demo household, use it a little, save pictures in ``out_dir``; returns their paths."""
    out_dir.mkdir(parents=True, exist_ok=True)
    with Household() as household:
        laptop, server = build(household, FILM_BYTES)
        household.start()
        household.wait_connected()
        _use(laptop, server)
        with _slowly(laptop, server):
            pictures = asyncio.run(_capture(laptop, out_dir))
    for picture in pictures:
        picture.write_text(_FONT_FACE.sub("", picture.read_text(encoding="utf-8")), encoding="utf-8")
    (out_dir / MADE_FROM).write_text(shown_sources() + "\n", encoding="ascii")
    return pictures


def shown_sources() -> str:
    """Return the BLAKE3, in hex, of everything that decides how the dashboard looks."""
    root = Path(__file__).resolve().parents[1]
    hasher = blake3()
    for path in sorted([*(root / "tui").rglob("*.py"), *(root / "tui").rglob("*.tcss"), root / "words.py"]):
        hasher.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()


def _use(laptop: Peer, server: Peer) -> None:
    """Bring the laptop into a state with files that are online, partial, cached, kept and real."""
    documents, media = laptop.view(DOCUMENTS), laptop.view(MEDIA)
    films = media / "films/holiday.mkv"
    wait_until(lambda: checks.lists(documents, samples.documents()), TIMEOUT_S, "the documents")
    wait_until(lambda: films.exists() and checks.attribute(films, "version") != "", TIMEOUT_S, "the film")
    server.wait_idle()
    (server.datadir(MEDIA) / "new films").mkdir()
    wait_until((media / "new films").is_dir, TIMEOUT_S, "the folder of new films")
    laptop.command("mark", "set", "own", f"{DOCUMENTS}/letters/2024")
    laptop.command(
        "mark", "set", "keep", f"{MEDIA}/albums/harbour", f"{MEDIA}/new films", f"{DOCUMENTS}/notes"
    )
    laptop.command("get", f"{MEDIA}/drawings", f"{DOCUMENTS}/table.csv")
    checks.read_range(films, FILM_BYTES // 2, 64 * 1024)
    (laptop.datadir(DOCUMENTS) / "notes").mkdir(parents=True, exist_ok=True)
    (laptop.datadir(DOCUMENTS) / "notes/Packing.md").write_bytes(samples.note("Packing"))
    wait_until((server.view(DOCUMENTS) / "notes/Packing.md").exists, TIMEOUT_S, "the laptop's own note")
    laptop.wait_idle()


@contextmanager
def _slowly(laptop: Peer, server: Peer) -> Iterator[None]:
    """Let the server send new films as over a slow line, so that transfers can be seen on their way.

    On one machine they would be over before a picture is taken: the server gets the processor for a small
    part of the time only.
    """
    assert server.process is not None
    process, done = server.process, threading.Event()
    note = server.datadir(DOCUMENTS) / "notes/Garden.md"

    def slow() -> None:
        for turn in count():
            if done.wait(AT_WORK_S):
                return
            process.send_signal(signal.SIGSTOP)
            done.wait(AT_REST_S)
            process.send_signal(signal.SIGCONT)
            if turn % TURNS_A_NOTE == 0:
                note.write_bytes(samples.note("Garden", 12 + turn))

    worker = threading.Thread(target=slow)
    worker.start()
    for name in NEW_FILMS:
        (server.datadir(MEDIA) / "new films" / name).write_bytes(os.urandom(NEW_FILM_BYTES))
    last = laptop.view(MEDIA) / "new films" / NEW_FILMS[-1]
    wait_until(lambda: last.exists() and checks.held_bytes(last) > 0, TIMEOUT_S, "the first bytes of a film")
    try:
        yield
    finally:
        done.set()
        worker.join()


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
