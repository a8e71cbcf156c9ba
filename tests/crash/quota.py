"""Watching the disk use of a blob directory from outside."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_EVERY_S = 0.05


def _blocks(directory: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for first in os.listdir(directory):
        try:
            with os.scandir(directory / first) as entries:
                for entry in entries:
                    found[entry.path] = entry.stat(follow_symlinks=False).st_blocks * 512
        except FileNotFoundError:
            continue  # evicted since it was listed
    return found


class QuotaWatch:
    """Measures again and again, in a thread. ``most`` is the highest use that there was for certain.

    Two looks after each other: a file that was there at both was there in between, and so were all
    such files at once. What each had at the least is a lower bound of the use at that moment.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.most = 0
        self.looks = 0

    def _run(self) -> None:
        before: dict[str, int] = {}
        while not self._stop.wait(_EVERY_S):
            now = _blocks(self._directory)
            used = sum(min(size, now[path]) for path, size in before.items() if path in now)
            self.most = max(self.most, used)
            self.looks += 1
            before = now

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
