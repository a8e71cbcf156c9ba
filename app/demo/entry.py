"""The two ways of the demo: the dashboard on a terminal, the narrated run without one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from app.demo import samples
from app.demo.household import ArenaPlan, Household, Peer, PeerPlan
from app.demo.story import Story
from core import config
from core.errors import UsageError

LAPTOP, SERVER = "laptop", "server"
DOCUMENTS, MEDIA = "documents", "media"


def run(directory: Path | None, ui: bool, keep: bool) -> int:
    """Run the demo in ``directory`` (None: a temporary one) and return its exit code.

    With ``ui``, and on a terminal, it shows the laptop's dashboard until the user quits; else it narrates
    what it does and checks, and returns 1 if anything was not seen to work. The files go away at the
    end unless they are to be kept.

    Raises:
        UsageError: ``directory`` has something in it already.
    """
    if directory is not None and directory.exists() and any(directory.iterdir()):
        raise UsageError(f"{directory}: not empty", hint="name a new directory, or none for a temporary one")
    with _signals_as_interrupt(), Household(directory, keep=keep) as household:
        laptop, server = build(household)
        if ui and sys.stdin.isatty() and sys.stdout.isatty():
            code = _show(laptop, server)
        else:
            code = Story(household, laptop, server).tell()
        if keep:
            print(f"kept: {household.directory}")
        return code


def build(household: Household, film_bytes: int = samples.FILM_BYTES) -> tuple[Peer, Peer]:
    """Make the laptop, which looks at files as it needs them, and the server, which owns all."""
    laptop = household.add(PeerPlan(LAPTOP, [ArenaPlan(DOCUMENTS), ArenaPlan(MEDIA)]))
    own = {"mark": "own"}
    server = household.add(
        PeerPlan(SERVER, [ArenaPlan(DOCUMENTS, options=own), ArenaPlan(MEDIA, options=own)])
    )
    household.introduce_all()
    samples.write(server.datadir(DOCUMENTS), samples.documents())
    samples.write(server.datadir(MEDIA), samples.media(film_bytes))
    return laptop, server


def _show(laptop: Peer, server: Peer) -> int:
    from app import daemon  # the dashboard is loaded only when it is shown

    print("starting the other peer …", flush=True)
    server.start()
    # What the dashboard remembers belongs to the demo, not to the user's own set-up.
    os.environ.update(laptop.environment())
    return daemon.run(config.load(laptop.config), ui=True)


@contextmanager
def _signals_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that daemons and mounts go with it."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        del frame
        sys.exit(128 + number)

    earlier = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
