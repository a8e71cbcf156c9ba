"""What users do: seeded random changes of datadirs and marks, and which contents they gave up knowingly."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

from blake3 import blake3

from core.api import ArenaPath, MarkChange
from core.errors import PathNotFoundError
from core.types import Mark
from tests.sim.hosts import ARENA, Host, files_below
from tests.sim.world import acting, dying

_DIRECTORIES = (b"", b"", b"d1", b"d2", b"d1/deep", b"d1/deep/er", b"d \xff\n3")
_FILES = (b"a", b"b", b"c", b"f1", b"f2", b"name with space", b"\xfe\n", b".hidden")
_LINKS = (b"l1", b"l2")


class Users:
    """All users of a household; ``contents`` is every content written and not given up by a user."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._number = 0
        self.contents: dict[bytes, str] = {}
        self._given_up: set[bytes] = set()
        self.log: list[str] = []

    def _note(self, host: Host, text: str) -> None:
        self.log.append(f"{host.name}: {text}")

    # -- contents

    def _new_content(self) -> bytes:
        self._number += 1
        rng = self._rng
        if rng.random() < 0.1:
            return rng.choice([b"", b"the same everywhere"])
        size = 1_500_000 if rng.random() < 0.04 else rng.choice([10, 200, 5000, 5000, 70_000, 300_000])
        return b"%06d " % self._number + rng.randbytes(size)

    def _written(self, data: bytes, where: str) -> None:
        content = blake3(data).digest()
        if content not in self._given_up:
            self.contents[content] = where

    def _give_up(self, path: Path) -> None:
        """Note that a user destroys what is at a path, which he sees there."""
        if path.is_symlink() or not path.exists():
            return
        files = (
            [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
        )
        for file in files:
            content = blake3(file.read_bytes()).digest()
            self._given_up.add(content)
            self.contents.pop(content, None)

    # -- choosing

    def _some_place(self, host: Host) -> Path:
        rng = self._rng
        directory, name = rng.choice(_DIRECTORIES), rng.choice(_FILES)
        return self._path(host, os.path.join(directory, name))

    @staticmethod
    def _path(host: Host, path: bytes) -> Path:
        assert host.datadir is not None
        return host.datadir / os.fsdecode(path)

    def _some(self, host: Host, kind: str) -> Path | None:
        assert host.datadir is not None
        tests = {"file": os.path.isfile, "dir": os.path.isdir, "any": os.path.lexists}
        found = []
        for path, _ in files_below(host.datadir):
            at = self._path(host, path)
            if tests[kind](at) and not (at.is_symlink() and kind != "any"):
                found.append(at)
        return self._rng.choice(sorted(found)) if found else None

    # -- doing

    def act(self, host: Host) -> None:
        """Do one thing in a datadir; nothing if there is nothing to do it to."""
        rng = self._rng
        action = rng.choices(
            [self._create, self._overwrite, self._append, self._save, self._delete, self._rename,
             self._rename_dir, self._delete_dir, self._chmod, self._touch, self._mkdir, self._link],
            [6, 4, 2, 3, 3, 3, 1, 1, 1, 1, 1, 1],
        )[0]  # fmt: skip
        try:
            action(host)
        except OSError:
            self._note(host, f"{action.__name__} came too late")  # the daemon changed it meanwhile

    def _put(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._give_up(path)
        path.write_bytes(data)
        self._written(data, str(path))

    def _create(self, host: Host) -> None:
        path = self._some_place(host)
        self._note(host, f"write {path}")
        self._put(path, self._new_content())

    def _overwrite(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, f"overwrite {path}")
            self._put(path, self._new_content())

    def _append(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, f"append {path}")
            self._put(path, path.read_bytes() + self._new_content()[:1000] + b".")

    def _save(self, host: Host) -> None:
        """Save as editors do: another name, then over the old one."""
        path = self._some(host, "file") or self._some_place(host)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._note(host, f"save {path}")
        temporary = path.with_name(path.name[:20] + ".swp")
        data = self._new_content()
        temporary.write_bytes(data)
        self._give_up(path)
        temporary.rename(path)
        self._written(data, str(path))

    def _delete(self, host: Host) -> None:
        path = self._some(host, "any")
        if path is not None and (path.is_symlink() or not path.is_dir()):
            self._note(host, f"delete {path}")
            self._give_up(path)
            path.unlink()

    def _rename(self, host: Host) -> None:
        path, to = self._some(host, "file"), self._some_place(host)
        if path is not None and path != to:
            self._note(host, f"rename {path} -> {to}")
            to.parent.mkdir(parents=True, exist_ok=True)
            self._give_up(to)
            path.rename(to)

    def _rename_dir(self, host: Host) -> None:
        path = self._some(host, "dir")
        to = self._path(host, self._rng.choice(_DIRECTORIES[2:]))
        if path is not None and not to.exists() and not to.is_relative_to(path):
            self._note(host, f"rename directory {path} -> {to}")
            to.parent.mkdir(parents=True, exist_ok=True)
            path.rename(to)

    def _delete_dir(self, host: Host) -> None:
        path = self._some(host, "dir")
        if path is not None:
            self._note(host, f"delete directory {path}")
            self._give_up(path)
            shutil.rmtree(path)

    def _chmod(self, host: Host) -> None:
        path = self._some(host, "any")
        if path is not None and not path.is_symlink():
            mode = self._rng.choice([0o644, 0o600, 0o755, 0o700])
            self._note(host, f"chmod {mode:o} {path}")
            path.chmod(mode | (0o700 if path.is_dir() else 0))

    def _touch(self, host: Host) -> None:
        path = self._some(host, "file")
        if path is not None:
            self._note(host, f"touch {path}")
            os.utime(path, ns=(0, self._rng.randrange(10**18)))

    def _mkdir(self, host: Host) -> None:
        path = self._path(host, self._rng.choice(_DIRECTORIES[2:]))
        self._note(host, f"mkdir {path}")
        path.mkdir(parents=True, exist_ok=True)

    def _link(self, host: Host) -> None:
        directory = self._rng.choice(_DIRECTORIES)
        path = self._path(host, os.path.join(directory, self._rng.choice(_LINKS)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        target = self._rng.choice(["a", "../b", "/nowhere", "/etc"])
        self._note(host, f"link {path} -> {target}")
        path.symlink_to(target)

    async def mark(self, host: Host) -> None:
        """Set or remove a mark at a path that the host shows."""
        rng = self._rng
        arena = host.arena
        rows = list(arena.cache.conn.execute("SELECT id FROM node WHERE kind <> 0 ORDER BY id"))
        node = rng.choice(rows)[0] if rng.random() < 0.7 else arena.cache.root
        at = ArenaPath(ARENA, arena.cache.tree.path(int(node)))
        mark = rng.choice([Mark.WATCH, Mark.KEEP, Mark.OWN, Mark.OWN, None])
        self._note(host, f"mark {at.path!r} {mark}")
        try:
            with dying(), acting(host.process):
                await host.service.mark_apply([MarkChange(at, mark)])
        except PathNotFoundError:
            self._note(host, "it was deleted meanwhile")
