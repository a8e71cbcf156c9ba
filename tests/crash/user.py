"""A seeded user of several hosts: what he writes, saves, renames, deletes and reads, and what he gave up."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from blake3 import blake3

DIRECTORIES = ("", "", "d1", "d2", "d1/deep", "d3 with space")
NAMES = ("a", "b", "c", "notes.txt", "x.ods", "ü\n")
SIZES = (0, 10, 300, 5000, 5000, 40_000, 70_000, 200_000)
_LARGE = (1_500_000, 3_000_000)
_MOST_FILES = 30

_NOT_NOW = frozenset(
    {errno.EHOSTUNREACH, errno.ENOENT, errno.EIO, errno.ENOSPC, errno.ESTALE, errno.ETIMEDOUT, errno.EISDIR}
)
"""What a read through a mount may say while a holder is dead or the file is being changed."""


def digest(data: bytes) -> bytes:
    return blake3(data).digest()


def files_below(root: Path) -> list[Path]:
    """Return the regular files below a directory; what vanishes meanwhile is left out."""
    found: list[Path] = []
    for at, _, names in os.walk(root):
        found += [Path(at, name) for name in names if not Path(at, name).is_symlink()]
    return sorted(found)


class User:
    """``contents``: what he wrote, or saw written, and did not overwrite or delete himself."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0
        self.contents: dict[bytes, str] = {}
        self.ever: set[bytes] = {digest(b"")}
        self.wrong: list[str] = []
        self.log: list[str] = []
        self.reads = 0

    def note(self, text: str) -> None:
        self.log.append(text)

    # -- contents

    def _new(self, directory: str) -> bytes:
        self._number += 1
        large = not directory.startswith("d1") and self._rng.random() < 0.06
        size = self._rng.choice(_LARGE if large else SIZES)
        return b"%06d " % self._number + self._rng.randbytes(size)

    def _written(self, data: bytes, path: Path) -> None:
        self.contents[digest(data)] = str(path)
        self.ever.add(digest(data))

    def _give_up(self, path: Path) -> None:
        """Note that what is at a path is about to be destroyed by the user, who sees it."""
        if path.is_file() and not path.is_symlink():
            self.contents.pop(digest(path.read_bytes()), None)

    # -- doing

    def act(self, name: str, datadir: Path) -> None:
        """Do one thing in a datadir."""
        files = files_below(datadir)
        actions: list[tuple[Callable[[Path, list[Path]], None], int]] = [
            (self._create, 6 if len(files) < _MOST_FILES else 0),
            (self._write_over, 3), (self._append, 2), (self._edit_in_place, 2), (self._save_by_rename, 4),
            (self._save_with_backup, 2), (self._delete_and_create, 1), (self._rename, 3),
            (self._rename_directory, 1), (self._delete, 2 if len(files) < _MOST_FILES else 8),
            (self._delete_directory, 1),
        ]  # fmt: skip
        action = self._rng.choices([one for one, _ in actions], [weight for _, weight in actions])[0]
        try:
            action(datadir, files)
        except OSError as error:
            self.note(f"{name}: {action.__name__} came too late: {error}")
        else:
            self.note(f"{name}: {action.__name__}")

    def _some_place(self, datadir: Path) -> tuple[Path, str]:
        directory = self._rng.choice(DIRECTORIES)
        (datadir / directory).mkdir(parents=True, exist_ok=True)
        return datadir / directory / self._rng.choice(NAMES), directory

    def _some(self, datadir: Path, files: list[Path]) -> tuple[Path, str]:
        if not files:
            raise FileNotFoundError("there is no file")
        path = self._rng.choice(files)
        return path, str(path.parent.relative_to(datadir))

    def _create(self, datadir: Path, _: list[Path]) -> None:
        path, directory = self._some_place(datadir)
        data = self._new(directory)
        self._give_up(path)
        path.write_bytes(data)
        self._written(data, path)

    def _write_over(self, datadir: Path, files: list[Path]) -> None:
        path, directory = self._some(datadir, files)
        data = self._new(directory)
        with path.open("r+b") as file:
            self.contents.pop(digest(file.read()), None)
            file.seek(0)
            file.truncate()
            file.write(data)
        self._written(data, path)

    def _append(self, datadir: Path, files: list[Path]) -> None:
        path, _ = self._some(datadir, files)
        with path.open("r+b") as file:
            had = file.read()
            more = self._new("d1")[:1000]
            file.write(more)
        self.contents.pop(digest(had), None)
        self._written(had + more, path)

    def _edit_in_place(self, datadir: Path, files: list[Path]) -> None:
        path, _ = self._some(datadir, files)
        with path.open("r+b") as file:
            had = file.read()
            piece = self._new("d1")[:20]
            at = self._rng.randrange(max(1, len(had)))
            file.seek(at)
            file.write(piece)
        self.contents.pop(digest(had), None)
        self._written(had[:at] + piece + had[at + len(piece) :], path)

    def _save_by_rename(self, datadir: Path, files: list[Path]) -> None:
        path, directory = self._some(datadir, files)
        data = self._new(directory)
        temporary = path.with_name(f".{path.name}.swp")
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._give_up(path)
        temporary.rename(path)
        self._written(data, path)

    def _save_with_backup(self, datadir: Path, files: list[Path]) -> None:
        path, directory = self._some(datadir, files)
        data = self._new(directory)
        backup = path.with_name(path.name[:20] + "~")
        if backup == path:
            return
        self._give_up(backup)
        path.rename(backup)
        path.write_bytes(data)
        self._written(data, path)

    def _delete_and_create(self, datadir: Path, files: list[Path]) -> None:
        path, directory = self._some(datadir, files)
        data = self._new(directory)
        self._give_up(path)
        path.unlink()
        path.write_bytes(data)
        self._written(data, path)

    def _rename(self, datadir: Path, files: list[Path]) -> None:
        path, _ = self._some(datadir, files)
        to, _ = self._some_place(datadir)
        if to != path:
            self._give_up(to)
            path.rename(to)

    def _rename_directory(self, datadir: Path, _: list[Path]) -> None:
        path, to = (datadir / self._rng.choice(DIRECTORIES[2:]) for _ in range(2))
        if path.is_dir() and not to.exists() and not to.is_relative_to(path):
            path.rename(to)

    def _delete(self, datadir: Path, files: list[Path]) -> None:
        path, _ = self._some(datadir, files)
        self._give_up(path)
        path.unlink()

    def _delete_directory(self, datadir: Path, _: list[Path]) -> None:
        path = datadir / self._rng.choice(DIRECTORIES[2:])
        for file in files_below(path):
            self._give_up(file)
        shutil.rmtree(path, ignore_errors=True)

    # -- reading

    def read(self, name: str, view: Path) -> None:
        """Read a file through a mount; every byte has to be of one version that somebody wrote."""
        files = files_below(view)
        if not files:
            return
        path = self._rng.choice(files)
        try:
            data = path.read_bytes()
        except OSError as error:
            self.note(f"{name}: reading {path} gave {error.strerror}")
            if error.errno not in _NOT_NOW:
                self.wrong.append(f"reading {path} gave {error}")
            return
        self.reads += 1
        self.note(f"{name}: read {path}")
        if digest(data) not in self.ever:
            self.wrong.append(f"I3/I4: {path}: {len(data)} bytes were read that nobody wrote: {data[:20]!r}…")
