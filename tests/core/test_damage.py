"""Blob files changed or removed while the daemon was down: never served, fetched again, told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from core.errors import ChangedError
from core.events import Warned
from core.types import FileState, Hash, Mark
from tests.core.engines import Host, linked, until
from tests.fakes.stores import flip

pytestmark = pytest.mark.trio

SMALL, LARGE = os.urandom(3000), os.urandom(700_000)
NAMES = {"small": SMALL, "large": LARGE}


def digest(data: bytes) -> Hash:
    return Hash(blake3(data).digest())


def flipped(path: Path) -> None:
    flip(path, path.stat().st_size // 2)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def grown(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes())


def linked_away(path: Path) -> None:
    path.rename(path.parents[2] / path.name)
    path.symlink_to(path.parents[2] / path.name)


DAMAGES = [flipped, truncated, emptied, grown, linked_away, Path.unlink]


async def cached(tmp_path: Path) -> tuple[Host, Host]:
    """Return two stopped hosts: bert has cached and keeps what anna has."""
    anna, bert = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN), Host(tmp_path, "bert", ["anna"])
    for name, data in NAMES.items():
        anna.write(name, data)
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.KEEP)
        await until(lambda: all(bert.arena.blobs.held(digest(data)) for data in NAMES.values()))
        await bert.idle()
    return anna, bert


def blob(host: Host, data: bytes) -> Path:
    content = digest(data).hex()
    return host.base / "work/blobs" / content[:2] / content


def warnings(host: Host) -> list[Warned]:
    return [event for event in host.events if isinstance(event, Warned)]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_while_down_it_is_not_served_but_told_and_fetched_again(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    anna, bert = await cached(tmp_path)
    for data in NAMES.values():
        damage(blob(bert, data))
    async with bert.up():
        for data in NAMES.values():
            assert not bert.running.provider.have("docs", digest(data))
            with pytest.raises(ChangedError):
                bert.running.provider.open_content("docs", digest(data))
        assert await bert.running.provider.read_small("docs", [digest(SMALL)]) == [None]
        (told,) = warnings(bert)
        assert all(name in told.text for name in NAMES)
        assert told.hint == "realize verify docs"
        states = {entry.state for entry in (await bert.entries()).values()}
        assert not states & {FileState.KEPT, FileState.CACHED}
        async with anna.up(), linked(anna, bert):
            await until(lambda: all(bert.arena.blobs.held(digest(data)) for data in NAMES.values()))
            await bert.idle()
        for data in NAMES.values():
            assert blob(bert, data).read_bytes() == data
    bert.events.clear()
    async with bert.up():
        assert not warnings(bert)


async def test_damaged_while_down_it_is_not_made_a_real_file(tmp_path: Path) -> None:
    anna, bert = await cached(tmp_path)
    for data in NAMES.values():
        flipped(blob(bert, data))
    async with bert.up():
        await bert.mark("", Mark.OWN)
        await bert.idle()
        assert bert.real() == {}
        async with anna.up(), linked(anna, bert):
            await until(lambda: len(bert.real()) == len(NAMES))
            await bert.idle()
        assert bert.real() == {name.encode(): data for name, data in NAMES.items()}


async def test_the_loss_of_the_last_copy_is_told_as_such(tmp_path: Path) -> None:
    _, bert = await cached(tmp_path)
    bert.peers = ()  # anna is taken out of the config: what she held is forgotten
    flipped(blob(bert, LARGE))
    async with bert.up():
        (told,) = warnings(bert)
        assert "large (no other peer is known to hold it)" in told.text


async def test_touched_but_not_changed_it_is_still_held_and_nothing_is_told(tmp_path: Path) -> None:
    _, bert = await cached(tmp_path)
    for data in NAMES.values():
        os.utime(blob(bert, data))
        blob(bert, data).chmod(0o640)
    async with bert.up():
        assert not warnings(bert)
        for data in NAMES.values():
            assert bert.arena.blobs.held(digest(data))


async def test_content_damaged_in_the_trash_is_not_restored(tmp_path: Path) -> None:
    anna = Host(tmp_path, "anna", ["bert"], mark=Mark.OWN)
    bert = Host(tmp_path, "bert", ["anna"])
    anna.write("f", SMALL)
    async with anna.up(), bert.up(), linked(anna, bert):
        await bert.mark("", Mark.OWN)
        await until(lambda: (bert.data / "f").exists())
        await bert.idle()
        (anna.data / "f").unlink()
        await until(lambda: not (bert.data / "f").exists())
        await bert.idle()
        assert len(await bert.service.trash_list()) == 1
    flipped(blob(bert, SMALL))
    async with bert.up():
        assert await bert.service.trash_list() == ()
        assert len(warnings(bert)) == 1
