"""What users do in datadirs: seeded random changes, each noted in the ledger."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import trio
from blake3 import blake3

from tests.sim.hosts import Host, unrealized
from tests.sim.ledger import Ledger, files_in
from tests.sim.world import World

_DIRECTORIES = (b"", b"", b"d1", b"d2", b"d1/deep", b"d1/deep/er", b"d \xff\n3")
_FILES = (b"a", b"b", b"c", b"f1", b"f2", b"name with space", b"\xfe\n", b".hidden")
_LINKS = (b"l1", b"l2")
_SIZES = (10, 200, 5000, 5000, 5000, 70_000, 140_000, 300_000)
_LARGE_BYTES = 1_500_000
_MANY_FILES = 60
"""A tree larger than this is cut down: the simulation is about interleavings, not about size."""


class Users:
    """All users of a household who work in a datadir."""

    def __init__(self, rng: random.Random, world: World, ledger: Ledger) -> None:
        self._rng = rng
        self._world = world
        self.ledger = ledger
        self._number = 0
        self._busy: set[int] = set()
        """Inode numbers of files that are being written slowly: nobody else touches those."""
        self._actions: dict[Callable[[Host], None], int] = {
            self._create: 6, self._overwrite: 5, self._append: 3, self._save: 4, self._delete: 3,
            self._rename: 4, self._rename_dir: 1, self._delete_dir: 1, self._exchange_dirs: 1, self._chmod: 1,
            self._touch: 1, self._mkdir: 1, self._link: 1, self._delete_link: 1,
        }  # fmt: skip

    # -- contents

    def _new_content(self) -> bytes:
        self._number += 1
        rng = self._rng
        if rng.random() < 0.06:
            return rng.choice([b"", b"the same everywhere"])
        size = _LARGE_BYTES if rng.random() < 0.02 else rng.choice(_SIZES)
        return b"%06d " % self._number + rng.randbytes(size)

    def _stamp(self, file: Path | int) -> None:
        now_ns = self._world.stamp_ns()
        os.utime(file, ns=(now_ns, now_ns))

    # -- choosing

    @staticmethod
    def _path(host: Host, path: bytes) -> Path:
        assert host.datadir is not None
        return host.datadir / os.fsdecode(path)

    @staticmethod
    def relative(host: Host, path: Path) -> bytes:
        assert host.datadir is not None
        return os.fsencode(path)[len(os.fsencode(host.datadir)) + 1 :]

    def _some_place(self, host: Host) -> Path:
        rng = self._rng
        return self._free(self._path(host, os.path.join(rng.choice(_DIRECTORIES), rng.choice(_FILES))))

    def _free(self, path: Path) -> Path:
        """Return a path at which nobody writes.

        Raises:
            BlockingIOError: somebody does.
        """
        if self._busy and any(file.stat().st_ino in self._busy for file in files_in(path)):
            raise BlockingIOError(errno.EAGAIN, "somebody writes there")
        return path

    def _some(self, host: Host, kind: str) -> Path | None:
        assert host.datadir is not None
        found: list[str] = []
        below = [str(host.datadir)]
        while below:
            with os.scandir(below.pop()) as entries:
                for entry in entries:
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if is_dir:
                        below.append(entry.path)
                    what = "dir" if is_dir else "link" if entry.is_symlink() else "file"
                    if what == kind or kind == "any":
                        found.append(entry.path)
        return self._free(Path(self._rng.choice(sorted(found)))) if found else None

    # -- doing

    def act(self, host: Host) -> None:
        """Do one thing in a datadir; nothing if there is nothing to do it to."""
        action = self._rng.choices(list(self._actions), list(self._actions.values()))[0]
        try:
            action(host)
        except OSError as error:
            self.ledger.note(host.name, f"{action.__name__} came too late: {error.strerror}")

    def _note(self, host: Host, what: str, path: Path, more: str = "") -> None:
        self.ledger.note(host.name, f"{what} {self.relative(host, path)!r} {more}")

    def _put(self, host: Host, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._gave_up(host, path)
        path.write_bytes(data)
        self._stamp(path)
        self.ledger.wrote(self.relative(host, path), data)

    def _gave_up(self, host: Host, path: Path) -> None:
        """A user puts another file where he sees one, or where one of his was until it was unrealized."""
        self.ledger.gave_up_file(path)
        content = unrealized(host, self.relative(host, path))
        if content is not None:
            self.ledger.gave_up(content)

    def _create(self, host: Host) -> None:
        path = self._some_place(host)
        if path.is_dir():
            return
        data = self._new_content()
        self._note(host, "write", path, f"{len(data)} bytes")
        self._put(host, path, data)

    def _overwrite(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, "overwrite", path)
            self._put(host, path, self._new_content())

    def _append(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, "append", path)
            self._put(host, path, path.read_bytes()[:500_000] + self._new_content()[:1000] + b".")

    def _save(self, host: Host) -> None:
        """Save as editors do: another name, then over the old one."""
        path = self._some(host, "file") or self._some_place(host)
        if path.is_dir():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._note(host, "save", path)
        temporary = path.with_name(path.name[:20] + ".swp")
        data = self._new_content()
        temporary.write_bytes(data)
        self._stamp(temporary)
        self.ledger.saw(self.relative(host, temporary), data)
        self._gave_up(host, path)
        temporary.rename(path)
        self.ledger.wrote(self.relative(host, path), data)

    def _delete(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, "delete", path)
            self.ledger.gave_up_file(path)
            path.unlink()

    def _delete_link(self, host: Host) -> None:
        path = self._some(host, "link")
        if path is not None:
            self._note(host, "delete", path)
            path.unlink()

    def _rename(self, host: Host) -> None:
        path, to = self._some(host, "file"), self._some_place(host)
        if path is not None and path != to and not to.is_dir():
            self._note(host, "rename", path, f"-> {self.relative(host, to)!r}")
            content = blake3(path.read_bytes()).digest()
            to.parent.mkdir(parents=True, exist_ok=True)
            self._gave_up(host, to)
            path.rename(to)
            self.ledger.renamed_file(content, self.relative(host, path), self.relative(host, to))

    def _rename_dir(self, host: Host) -> None:
        path = self._some(host, "dir")
        to = self._free(self._path(host, self._rng.choice(_DIRECTORIES[2:])))
        if path is not None and not os.path.lexists(to) and not to.is_relative_to(path):
            self._note(host, "rename directory", path, f"-> {self.relative(host, to)!r}")
            to.parent.mkdir(parents=True, exist_ok=True)
            self._move(host, path, to)

    def _move(self, host: Host, path: Path, to: Path) -> None:
        self.ledger.touched_file(path)
        self.ledger.moved_directory(self.relative(host, path), self.relative(host, to))
        path.rename(to)

    def _exchange_dirs(self, host: Host) -> None:
        one, other = self._some(host, "dir"), self._some(host, "dir")
        if one is None or other is None or one.is_relative_to(other) or other.is_relative_to(one):
            return
        self._note(host, "exchange", one, repr(self.relative(host, other)))
        between = one.with_name("between")
        self._move(host, one, between)
        self._move(host, other, one)
        self._move(host, between, other)

    def _delete_dir(self, host: Host) -> None:
        path = self._some(host, "dir")
        if path is not None:
            self._note(host, "delete directory", path)
            self.ledger.gave_up_file(path)
            shutil.rmtree(path)

    def _chmod(self, host: Host) -> None:
        path = self._some(host, "any")
        if path is not None and not path.is_symlink():
            mode = self._rng.choice([0o644, 0o600, 0o755, 0o700])
            self._note(host, f"chmod {mode:o}", path)
            self.ledger.touched_file(path) if path.is_file() else None
            path.chmod(mode | (0o700 if path.is_dir() else 0))

    def _touch(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, "touch", path)
            self.ledger.touched_file(path)
            os.utime(path, ns=(0, self._rng.randrange(10**18)))

    def _mkdir(self, host: Host) -> None:
        path = self._path(host, self._rng.choice(_DIRECTORIES[2:]))
        self._note(host, "mkdir", path)
        path.mkdir(parents=True, exist_ok=True)

    def _link(self, host: Host) -> None:
        path = self._path(host, os.path.join(self._rng.choice(_DIRECTORIES), self._rng.choice(_LINKS)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        target = self._rng.choice(["a", "../b", "/nowhere", "/etc"])
        self._note(host, "link", path, f"-> {target}")
        path.symlink_to(target)
        now_ns = self._world.stamp_ns()
        os.utime(path, ns=(now_ns, now_ns), follow_symlinks=False)

    def tidy(self, host: Host) -> None:
        """Delete something if the tree has become large."""
        if host.datadir is not None and len(files_in(host.datadir)) > _MANY_FILES:
            with contextlib.suppress(OSError):
                self._delete_dir(host)

    async def write_slowly(self, host: Host) -> None:
        """Write a file in two halves with a pause, holding it open."""
        data = self._new_content()
        pause_s = self._rng.choice([0, 0.1, 0.4, 2])
        half = len(data) // 2
        try:
            path = self._some(host, "file") or self._some_place(host)
            path.parent.mkdir(parents=True, exist_ok=True)
            self._gave_up(host, path)
            at = self.relative(host, path)
            with path.open("wb", buffering=0) as file:
                self._note(host, "begins to write", path)
                ino = os.fstat(file.fileno()).st_ino
                self._busy.add(ino)
                try:
                    self.ledger.saw(at, b"")
                    file.write(data[:half])
                    self._stamp(file.fileno())
                    self.ledger.saw(at, data[:half])
                    await trio.sleep(pause_s)
                    self._note(host, "goes on to write", path)
                    file.write(data[half:])
                    self._stamp(file.fileno())
                finally:
                    self._busy.discard(ino)
        except OSError as error:
            self.ledger.note(host.name, f"write_slowly came too late: {error.strerror}")
        else:
            self.ledger.wrote(at, data)
