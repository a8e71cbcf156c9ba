"""What users wrote, saw and gave up: what the checks of a simulated household are made against."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

from blake3 import blake3

_COPY = re.compile(rb"\.conflict-.+?-\d{8}-\d{6}(-\d+)?")


class Ledger:
    """Everything that users did to contents in one household. Paths are relative to the arena."""

    def __init__(self) -> None:
        self.wanted: dict[bytes, str] = {}
        """Contents by hash that a user was told are written, and that nobody gave up; with where."""
        self.given_up: set[bytes] = set()
        self.unsure: set[bytes] = set()
        """Contents of which a host that others relied on has lost the database."""
        self.data: dict[bytes, bytes] = {}
        """Every content that a file had at any moment, by hash."""
        self.log: list[str] = []
        self.problems: list[str] = []
        """What was found wrong between two rests."""
        self.uses: Counter[bytes] = Counter()
        """How often a content was touched since the last rest."""
        self.renamed: dict[bytes, tuple[bytes, bytes]] = {}
        """Contents renamed since the last rest: from where to where."""
        self._origins: dict[bytes, set[bytes]] = {}
        self._line: dict[bytes, bytes] = {}

    def note(self, who: str, text: str) -> None:
        """Write a line of the log."""
        self.log.append(f"{who}: {text}")

    # -- contents

    def saw(self, path: bytes, data: bytes) -> bytes:
        """A file has this content, maybe only for a moment; returns its hash."""
        content = blake3(data).digest()
        self.data[content] = data
        self._origins.setdefault(content, set()).add(path)
        return content

    def wrote(self, path: bytes, data: bytes) -> None:
        """A user was told that this is written."""
        content = self.saw(path, data)
        self.uses[content] += 1
        if content not in self.given_up:
            self.wanted[content] = os.fsdecode(path)

    def touched(self, content: bytes) -> None:
        """Something else was done with a content than to rename it."""
        self.uses[content] += 1

    def gave_up(self, content: bytes) -> None:
        """A user destroyed what he saw, or chose another version."""
        self.uses[content] += 1
        self.given_up.add(content)
        self.wanted.pop(content, None)

    def gave_up_file(self, path: Path) -> None:
        """A user destroys the file at a path, or what is in a directory."""
        for file in files_in(path):
            self.gave_up(blake3(file.read_bytes()).digest())

    def touched_file(self, path: Path) -> None:
        """A user does something to a file, or to what is in a directory, that keeps the content."""
        for file in files_in(path):
            self.touched(blake3(file.read_bytes()).digest())

    # -- where contents may be seen

    def renamed_file(self, content: bytes, old: bytes, new: bytes) -> None:
        """A user renamed a file."""
        self.uses[content] += 1
        if _COPY.search(old) is None:  # a daemon made the copy: the content may be at its place still
            self.renamed[content] = (old, new)
        self.joined(old, new)

    def joined(self, old: bytes, new: bytes) -> None:
        """What was at one path may be seen at another from now on, and the other way round."""
        left, right = self._first(old), self._first(new)
        if left != right:
            self._line[right] = left

    def moved_directory(self, old: bytes, new: bytes) -> None:
        """A user renamed a directory, with what is in it, was, or is elsewhere at such paths."""
        known = {path for origins in self._origins.values() for path in origins} | self._line.keys()
        for path in sorted(known):
            if path.startswith(old + b"/"):
                self.joined(path, new + path[len(old) :])

    def _first(self, path: bytes) -> bytes:
        path = _COPY.sub(b"", path)
        while path in self._line:
            path = self._line[path]
        return path

    def belongs(self, content: bytes, path: bytes) -> bool:
        """Say whether a content was ever written at a path, or at one that it was renamed from."""
        first = self._first(path)
        return any(self._first(origin) == first for origin in self._origins.get(content, ()))

    def origins(self, content: bytes) -> str:
        """Say where a content was written."""
        return f"{content.hex()[:16]} was written to {sorted(self._origins.get(content, ()))}"

    def rested(self) -> None:
        """Begin a new phase."""
        self.uses.clear()
        self.renamed.clear()


def files_in(path: Path) -> list[Path]:
    """Return a file, or the files below a directory; links are no files."""
    if path.is_symlink() or not path.exists():
        return []
    if path.is_file():
        return [path]
    found = []
    for directory, _, names in os.walk(path):
        found += [Path(directory, name) for name in names]
    return [file for file in found if file.is_file() and not file.is_symlink()]
