"""``user.realize.mark`` of real files and directories: read, written, removed, and who wins."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from core import markattr
from core.events import Warned
from core.types import Mark
from tests.core.engines import Host, linked, until

NAME = markattr.ATTRIBUTE


def attribute(path: Path) -> bytes:
    return markattr.read(bytes(path)) or b""


def has(path: Path, value: bytes) -> bool:
    return attribute(path) == value


def is_marked(host: Host, path: str, mark: Mark | None) -> bool:
    return host.explicit(path) is mark


@pytest.fixture
def host(tmp_path: Path) -> Host:
    path = tmp_path / "probe"
    path.touch()
    os.setxattr(path, NAME, b"keep")  # the tests below mean nothing where this is not possible
    return Host(tmp_path, "a", ["b"])


@pytest.mark.trio
async def test_marks_are_read_at_the_first_scan(host: Host) -> None:
    os.setxattr(host.write("d/f"), NAME, b"own")
    os.setxattr(host.data / "d", NAME, b"keep\n")
    os.setxattr(host.data, NAME, b"own")
    async with host.up():
        await until(lambda: host.explicit("d/f"))
        await host.idle()
        assert [host.explicit(path) for path in ("", "d", "d/f")] == [Mark.OWN, Mark.KEEP, Mark.OWN]


@pytest.mark.trio
async def test_marks_set_and_removed_while_running(host: Host) -> None:
    file = host.write("d/f")
    async with host.up():
        await host.idle()
        for path, at in (("d/f", file), ("d", host.data / "d"), ("", host.data)):
            for mark in (Mark.KEEP, Mark.OWN):
                os.setxattr(at, NAME, mark.value.encode())
                await until(partial(is_marked, host, path, mark))
            os.removexattr(at, NAME)
            await until(partial(is_marked, host, path, None))


@pytest.mark.trio
async def test_marks_set_and_removed_while_down(host: Host) -> None:
    for name in ("set", "changed", "removed", "same"):
        host.write(name)
    async with host.up():
        await host.idle()
        for name in ("changed", "removed", "same"):
            await host.mark(name, Mark.KEEP)
            await until(partial(has, host.data / name, b"keep"))
    os.setxattr(host.data / "set", NAME, b"own")
    os.setxattr(host.data / "changed", NAME, b"own")
    os.removexattr(host.data / "removed", NAME)
    async with host.up():
        await host.idle()
        marks = {name: host.explicit(name) for name in ("set", "changed", "removed", "same")}
    assert marks == {"set": Mark.OWN, "changed": Mark.OWN, "removed": None, "same": Mark.KEEP}


@pytest.mark.trio
async def test_marks_set_elsewhere_are_written_and_removed(host: Host) -> None:
    file = host.write("d/f")
    before = file.stat()
    async with host.up():
        await host.idle()
        for path, at in (("d/f", file), ("d", host.data / "d"), ("", host.data)):
            await host.mark(path, Mark.KEEP)
            await until(partial(has, at, b"keep"))
            await host.mark(path, None)
            await until(partial(has, at, b""))
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.trio
async def test_the_attribute_that_was_written_is_no_wish_of_the_user(host: Host) -> None:
    file = host.write("d/f")
    async with host.up():
        await host.idle()
        for path, at in (("d/f", file), ("d", host.data / "d"), ("", host.data)):
            for mark, value in ((Mark.KEEP, b"keep"), (None, b""), (Mark.OWN, b"own"), (None, b"")) * 3:
                await host.mark(path, mark)
                await until(partial(has, at, value))
                await until(host.arena.index.idle)  # type: ignore[union-attr]
                assert host.explicit(path) is mark


@pytest.mark.trio
async def test_what_was_not_written_before_a_stop_is_written_after_it(host: Host) -> None:
    file = host.write("f")
    async with host.up():
        await host.idle()
        node = host.node("f")
        assert node is not None
    async with host.up():
        # As if the process had died between the mark and its attribute.
        cache = host.arena.cache
        cache.conn.execute("INSERT INTO mark (node, mark) VALUES (?, 'own')", (node,))
    async with host.up():
        await until(lambda: attribute(file) == b"own")
        assert host.explicit("f") is Mark.OWN


@pytest.mark.trio
async def test_an_editor_that_replaces_the_file_does_not_remove_its_mark(host: Host) -> None:
    file = host.write("f")
    async with host.up():
        await host.idle()
        await host.mark("f", Mark.OWN)
        await until(lambda: attribute(file) == b"own")
        host.write("f.tmp", b"saved").rename(file)
        await until(lambda: attribute(file) == b"own")
        await host.idle()
        assert host.explicit("f") is Mark.OWN
        assert file.read_bytes() == b"saved"


@pytest.mark.trio
async def test_an_unknown_value_is_ignored_with_one_warning(host: Host) -> None:
    file = host.write("f")
    async with host.up():
        await host.idle()
        for value in (b"always", b"\xff"):
            os.setxattr(file, NAME, value)
            await until(host.arena.index.idle)  # type: ignore[union-attr]
        os.setxattr(host.write("g"), NAME, b"keep")
        await until(lambda: host.explicit("g") is Mark.KEEP)
        assert host.explicit("f") is None
    warnings = [event.text for event in host.events if isinstance(event, Warned)]
    assert len(warnings) == 1
    assert "user.realize.mark" in warnings[0]


@pytest.mark.trio
async def test_a_file_that_becomes_real_gets_its_mark_and_only_its_own(tmp_path: Path, host: Host) -> None:
    other = Host(tmp_path, "b", ["a"])
    os.setxattr(host.write("f", b"content"), NAME, b"keep")
    host.write("same", b"content")
    async with host.up(), other.up(), linked(host, other):
        await until(lambda: other.node("same"))
        await host.idle()
        await other.mark("f", Mark.OWN)
        await until(lambda: attribute(other.data / "f") == b"own")
        await other.mark("same", Mark.OWN)
        await until(lambda: attribute(other.data / "same") == b"own")
        await other.mark("", Mark.OWN)
        await other.mark("same", None)
        await until(lambda: attribute(other.data / "same") == b"")
        assert attribute(host.data / "same") == b""
        assert (other.explicit("f"), host.explicit("f")) == (Mark.OWN, Mark.KEEP)
