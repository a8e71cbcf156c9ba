"""The narrated run: each step does something a user would do and checks what became of it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from app.demo import checks, samples
from app.demo.household import Household, HouseholdError, Peer, wait_until

MIB = 1024 * 1024
STEP_TIMEOUT_S = 30.0
NO_HOLDER_LIMIT_S = 5.5
"""LIMIT: spec 6 gives a read that no connected peer can serve 5 s; half a second for this process."""

PARTIAL_LIMIT_BYTES = 8 * MIB
"""LIMIT: a 64 KiB read may bring some blocks along (read-ahead), never a good part of the film."""

Step = Callable[[], str]


class Story:
    """The steps in their order, for a laptop and a server that are configured but not started."""

    def __init__(self, household: Household, laptop: Peer, server: Peer) -> None:
        """Make the story; `tell` starts the daemons."""
        self._household = household
        self._laptop = laptop
        self._server = server
        self._documents = laptop.view("documents")
        self._media = laptop.view("media")
        self._film = self._media / "films/holiday.mkv"
        self._real_film = server.datadir("media") / "films/holiday.mkv"
        self._letter = "letters/2024/06/letter.txt"

    def steps(self) -> list[tuple[str, Step]]:
        """Return the steps: what each shows, and the function that does it and returns a figure."""
        return [
            ("start two daemons and connect them", self._connect),
            ("see the server's files on the laptop", self._see),
            ("read a part of a large file, fetch only that part", self._partial_read),
            ("read the whole file", self._full_read),
            ("read it again with the server gone", self._offline_read),
            ("connect again by themselves", self._reconnect),
            ("mark an album keep: cached before anyone reads it", self._keep),
            ("mark a letter own: a real file on the laptop", self._own),
            ("change it on the server: replaced on the laptop", self._change_there),
            ("change it on the laptop: replaced on the server", self._change_here),
            ("a new file on the laptop reaches the server", self._new_here),
            ("delete a file on the server: gone on the laptop", self._delete_there),
            ("take the marks back", self._unmark),
            ("stop in order", self._stop),
        ]

    def tell(self) -> int:
        """Do the steps, print a line for each, and return 0 if all were seen to work, else 1."""
        print(f"Two peers on this machine, in {self._household.directory}\n")
        for number, (title, step) in enumerate(self.steps(), 1):
            started_s = time.monotonic()
            try:
                figure = step()
            except (AssertionError, HouseholdError, OSError) as error:
                print(f"  ✗ {number:2}. {title}: {error}", flush=True)
                self._show_logs()
                return 1
            took_s = time.monotonic() - started_s
            print(f"  ✓ {number:2}. {title:<52} {took_s:6.2f} s  {figure}", flush=True)
        print(f"\nAll {len(self.steps())} steps were seen to work.")
        return 0

    def _show_logs(self) -> None:
        for peer in (self._laptop, self._server):
            print(f"\n--- the end of {peer.name}'s log\n{peer.log_tail()}")

    def _connect(self) -> str:
        self._household.start()
        self._household.wait_connected()
        (peer,) = self._laptop.status()["peers"]
        return f"TLS, round trip {peer['rtt_ms'] or 0:.1f} ms"

    def _see(self) -> str:
        documents, media = samples.documents(), samples.media(film_bytes=0)[:-1]
        film_bytes = self._real_film.stat().st_size
        for view, files in ((self._documents, documents), (self._media, media)):
            wait_until(partial(checks.lists, view, files), STEP_TIMEOUT_S, f"all files in {view}")
            _check(
                checks.same_metadata(view, self._server.datadir(view.name), files),
                "times and modes are equal",
            )
        wait_until(lambda: _size(self._film) == film_bytes, STEP_TIMEOUT_S, "the film is shown with its size")
        _check((self._documents / "empty folder").is_dir(), "the empty folder is there")
        self._server.wait_idle()
        return f"{len(documents) + len(media) + 1} files, odd names among them; nothing fetched yet"

    def _partial_read(self) -> str:
        wait_until(lambda: _version(self._film) != "", STEP_TIMEOUT_S, "the film's hash is known")
        _check(checks.held_bytes(self._film) == 0, "nothing of the film is here yet")
        offset, length = 20 * MIB + 12_345, 64 * 1024
        piece = checks.read_range(self._film, offset, length)
        _check(piece == checks.read_range(self._real_film, offset, length), "the bytes are right")
        # What an open file has fetched is recorded when it is closed, which the daemon does in its own time.
        wait_until(lambda: _state(self._film) == "partial", STEP_TIMEOUT_S, "its state is partial")
        held = checks.held_bytes(self._film)
        _check(length <= held <= PARTIAL_LIMIT_BYTES, f"only a part was fetched, not {held} bytes")
        return f"{held / MIB:.2f} of {_size(self._film) / MIB:.0f} MiB fetched"

    def _full_read(self) -> str:
        started_s = time.monotonic()
        size = sum(len(piece) for piece in checks.chunks(self._film))
        took_s = time.monotonic() - started_s
        _check(checks.same_content(self._film, self._real_film.read_bytes()), "the whole content is right")
        wait_until(lambda: _state(self._film) == "cached", STEP_TIMEOUT_S, "its state is cached")
        return f"{size / MIB / took_s:.0f} MiB/s, encrypted and verified"

    def _offline_read(self) -> str:
        self._server.stop()
        checks.forget_cached_pages(self._film)
        _check(checks.same_content(self._film, self._real_film.read_bytes()), "the cached film reads right")
        started_s = time.monotonic()
        missing = self._media / "drawings/teal.svg"
        try:
            missing.read_bytes()
        except OSError as error:
            _check(error.errno == errno.EHOSTUNREACH, f"what is not here says so, not {error}")
        else:
            raise AssertionError("a file that is not here was read with no holder connected")
        took_s = time.monotonic() - started_s
        _check(took_s < NO_HOLDER_LIMIT_S, f"it said so within 5 s, not {took_s:.1f} s")
        _check(missing.stat().st_size > 0 and "drawings" in os.listdir(self._media), "names are still listed")
        return f"what is not here fails after {took_s:.1f} s instead of hanging"

    def _reconnect(self) -> str:
        self._server.start()
        self._household.wait_connected()
        return "nothing was lost over the restart"

    def _keep(self) -> str:
        album = self._media / "albums/harbour"
        pictures = sorted(album.iterdir())
        self._laptop.command("mark", "set", "keep", "media/albums/harbour")
        wait_until(
            lambda: {_state(path) for path in pictures} == {"kept"}, STEP_TIMEOUT_S, "all pictures are kept"
        )
        real = self._server.datadir("media") / "albums/harbour"
        _check(
            all(path.read_bytes() == (real / path.name).read_bytes() for path in pictures), "they read right"
        )
        return f"{len(pictures)} pictures"

    def _own(self) -> str:
        self._laptop.command("mark", "set", "own", f"documents/{self._letter}")
        here, there = self._real_letters()
        wait_until(
            lambda: here.is_file() and _state(self._shown_letter) == "real",
            STEP_TIMEOUT_S,
            f"{here} is there",
        )
        _check(here.read_bytes() == there.read_bytes(), "its content is right")
        _check(here.stat().st_mtime_ns == there.stat().st_mtime_ns, "its time is the server's")
        return "same content, same time"

    def _change_there(self) -> str:
        here, there = self._real_letters()
        return self._change(there, here, b"changed on the server\n")

    def _change_here(self) -> str:
        here, there = self._real_letters()
        return self._change(here, there, b"changed on the laptop\n")

    def _change(self, source: Path, target: Path, text: bytes) -> str:
        content = source.read_bytes() + text
        checks.save(source, content)
        took_s = wait_until(lambda: checks.becomes(target, content), STEP_TIMEOUT_S, "the change arrives")
        wait_until(lambda: checks.becomes(self._shown_letter, content), STEP_TIMEOUT_S, "the mount shows it")
        _check(target.stat().st_mtime_ns == source.stat().st_mtime_ns, "its time is that of the change")
        return f"there after {took_s * 1000:.0f} ms"

    def _new_here(self) -> str:
        source = self._laptop.datadir("documents") / "notes/Packing.md"
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_bytes(samples.note("Packing"))
        shown = self._server.view("documents") / "notes/Packing.md"
        took_s = wait_until(shown.is_file, STEP_TIMEOUT_S, "it is listed on the server's mount")
        _check(shown.read_bytes() == source.read_bytes(), "it reads right there")
        return f"listed after {took_s * 1000:.0f} ms"

    def _delete_there(self) -> str:
        (self._server.datadir("documents") / "table.csv").unlink()
        shown = self._documents / "table.csv"
        took_s = wait_until(lambda: not shown.exists(), STEP_TIMEOUT_S, "it is gone from the laptop's mount")
        return f"gone after {took_s * 1000:.0f} ms"

    def _unmark(self) -> str:
        _check(checks.attribute(self._shown_letter, "mark") == "own", "the letter is marked own")
        self._laptop.command("mark", "unset", f"documents/{self._letter}", "media/albums/harbour")
        marks = {
            checks.attribute(path, "mark") for path in (self._shown_letter, self._media / "albums/harbour")
        }
        _check(marks == {"watch"}, f"both have the arena's mark again, not {marks}")
        _check(
            self._shown_letter.read_bytes() == self._real_letters()[1].read_bytes(),
            "the letter still reads right",
        )
        return "watch again; nothing is lost by it"

    def _stop(self) -> str:
        codes = [self._laptop.stop(), self._server.stop()]
        _check(codes == [0, 0], f"both end with 0, not {codes}")
        return "unmounted, databases closed"

    @property
    def _shown_letter(self) -> Path:
        return self._documents / self._letter

    def _real_letters(self) -> tuple[Path, Path]:
        return (
            self._laptop.datadir("documents") / self._letter,
            self._server.datadir("documents") / self._letter,
        )


def _check(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(f"expected: {what}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _state(path: Path) -> str:
    return checks.attribute(path, "state")


def _version(path: Path) -> str:
    return checks.attribute(path, "version")
