"""However a program saves a file, its peer is told of one change of that file, and the record has one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from core.api import ArenaPath
from core.events import FileChanged
from core.types import Mark
from tests.core.engines import Host, linked, until

pytestmark = pytest.mark.trio

Save = Callable[[Path, bytes], None]


def _write(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _truncate_and_write_in_pieces(path: Path, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(data), 3):
            file.write(data[start : start + 3])


def _vim(path: Path, data: bytes) -> None:
    swap, probe, backup = path.with_name(".doc.swp"), path.with_name("4913"), path.with_name("doc~")
    swap.write_bytes(b"b0VIM")
    probe.touch()
    probe.unlink()
    path.rename(backup)
    _write(path, data)
    path.chmod(0o644)
    backup.unlink()
    swap.unlink()


def _emacs(path: Path, data: bytes) -> None:
    lock = path.with_name(".#doc")
    lock.symlink_to("user@host.1234:1700000000")
    path.rename(path.with_name("doc~"))
    _write(path, data)
    path.chmod(0o644)
    lock.unlink()


def _gedit(path: Path, data: bytes) -> None:
    temporary = path.with_name(".goutputstream-K3QM42")
    _write(temporary, data)
    temporary.chmod(0o644)
    temporary.rename(path)


def _office(path: Path, data: bytes) -> None:
    lock, temporary = path.with_name(".~lock.doc#"), path.with_name("lu12345abcd.tmp")
    lock.write_bytes(b",user,host,01.01.2026 10:00,file:///x;")
    _write(temporary, data)
    temporary.rename(path)
    lock.unlink()


def _rsync(path: Path, data: bytes) -> None:
    temporary = path.with_name(".doc.AbC123")
    temporary.write_bytes(data)
    os.utime(temporary, ns=(1_700_000_000_000_000_000, 1_700_000_000_000_000_000))
    temporary.chmod(0o644)
    temporary.rename(path)


def _sed(path: Path, data: bytes) -> None:
    subprocess.run(["sed", "-i", f"s/.*/{data.decode()}/", path], check=True)


def _delete_and_create(path: Path, data: bytes) -> None:
    path.unlink()
    _write(path, data)


WAYS = [
    _write,
    _truncate_and_write_in_pieces,
    _vim,
    _emacs,
    _gedit,
    _office,
    _rsync,
    _sed,
    _delete_and_create,
]


@pytest.mark.parametrize("save", WAYS, ids=lambda save: save.__name__.strip("_"))
async def test_a_save_is_one_change_at_the_peer(tmp_path: Path, save: Save) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN, debounce_s=0.3)
    bert = Host(tmp_path, "bert", ["anna"], mark=Mark.OWN, debounce_s=0.3)
    anna.write("d/doc", b"as it was")
    async with anna.up(), bert.up(), linked(anna, bert):
        await until(lambda: bert.real() == {b"d/doc": b"as it was"})
        await anna.idle()
        await bert.idle()
        mark = len(bert.events)
        save(anna.data / "d/doc", b"as it is now")
        await until(lambda: bert.real().get(b"d/doc") == b"as it is now")
        await anna.idle()
        await bert.idle()
        told = [
            (event.what, event.path)
            for event in bert.events[mark:]
            if isinstance(event, FileChanged) and event.peer == "anna"
        ]
        backup = [("added", b"d/doc~")] if save is _emacs else []
        assert sorted(told) == sorted([("replaced", b"d/doc"), *backup])
        written = [
            (line.what, line.at.path)
            async for batch in anna.service.log(ArenaPath("docs", b"d"))
            for line in batch
            if line.at.path != b"d"
        ]
        assert sorted(written[1:]) == sorted([("replaced", b"d/doc"), *backup])
        assert set(bert.real()) == {b"d/doc", *(path for _, path in backup)}
        assert not (await bert.entries())[b"d/doc"].conflict


async def test_a_file_whose_old_content_becomes_a_backup_keeps_its_node_and_mark(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", [], debounce_s=0.3)
    anna.write("d/doc", b"first")
    async with anna.up():
        await anna.idle()
        await anna.mark("d/doc", Mark.KEEP)
        node = anna.node("d/doc")
        for text in (b"the second", b"and the third"):
            _emacs(anna.data / "d/doc", text)
            await until(lambda: anna.real()[b"d/doc"] == text)  # noqa: B023 - awaited at once
            await anna.idle()
            assert anna.node("d/doc") == node
            assert anna.explicit("d/doc") is Mark.KEEP
        assert anna.real() == {b"d/doc": b"and the third", b"d/doc~": b"the second"}
