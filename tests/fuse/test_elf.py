"""Finding the import table of a loaded library."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pyfuse3
import pytest

from fuse.elf import Slot, import_slot


def test_the_slot_holds_the_address_of_the_function() -> None:
    slot = import_slot(Path(pyfuse3.__file__).resolve(), b"fuse_session_fd")
    libfuse = ctypes.CDLL("libfuse3.so.3")
    before = ctypes.c_uint64.from_address(slot.address).value
    function = ctypes.cast(libfuse.fuse_session_fd, ctypes.c_void_p).value
    assert function is not None
    slot.write(function)
    assert ctypes.c_uint64.from_address(slot.address).value == function
    slot.write(before)


def test_a_read_only_table_is_written_and_stays_read_only() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    address = libc.mmap(None, 4096, 1, 0x22, -1, 0)
    Slot(address + 64, read_only=True).write(12345)
    assert ctypes.c_uint64.from_address(address + 64).value == 12345
    maps = Path("/proc/self/maps").read_text().splitlines()
    area = next(
        line
        for line in maps
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    )
    assert area.split()[1].startswith("r--")


@pytest.mark.parametrize("symbol", [b"no_such_function", b""])
def test_what_is_not_imported_is_an_error(symbol: bytes) -> None:
    with pytest.raises(ValueError, match=r"no such import|outside"):
        import_slot(Path(pyfuse3.__file__).resolve(), symbol or b"fuse_")


def test_what_is_no_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"#!/bin/sh\n")
    with pytest.raises(ValueError, match="ELF"):
        import_slot(tmp_path / "x", b"main")
