"""Where a loaded shared object keeps the addresses of functions it imports, and their change (64-bit ELF)."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_RELA, _DT_RELASZ, _DT_JMPREL = 2, 5, 6, 7, 8, 23
_RELOCATION = struct.Struct("<QQq")
_SYMBOL_BYTES = 24
_PROT_READ, _PROT_WRITE = mmap.PROT_READ, mmap.PROT_WRITE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Slot(NamedTuple):
    """A word of an import table: ``address`` in this process; ``read_only`` as hardened builds have it."""

    address: int
    read_only: bool

    def write(self, value: int) -> None:
        """Put another function into the slot.

        Raises:
            OSError: the page cannot be made writable.
        """
        if self.read_only:
            self._protect(_PROT_READ | _PROT_WRITE)
        ctypes.c_uint64.from_address(self.address).value = value
        if self.read_only:
            self._protect(_PROT_READ)

    def _protect(self, protection: int) -> None:
        page = self.address & ~(mmap.PAGESIZE - 1)
        if _libc.mprotect(page, mmap.PAGESIZE, protection):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def import_slot(path: Path, symbol: bytes) -> Slot:
    """Return the slot through which the loaded file ``path`` calls the function ``symbol``.

    Raises:
        ValueError: the file is no 64-bit little-endian ELF, has no such slot, or is not loaded.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit ELF file")
    (start,), (size, count) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, start + i * size) for i in range(count)]
    loads = [(va, offset, length) for kind, _, offset, va, _, length, _, _ in headers if kind == _PT_LOAD]
    offset, length = next(((h[2], h[5]) for h in headers if h[0] == _PT_DYNAMIC), (0, 0))
    dynamic = dict(struct.iter_unpack("<QQ", data[offset : offset + length]))
    strings = _file_offset(loads, dynamic.get(_DT_STRTAB, 0))
    symbols = _file_offset(loads, dynamic.get(_DT_SYMTAB, 0))
    for address, number in _relocations(data, loads, dynamic):
        (name,) = struct.unpack_from("<I", data, symbols + number * _SYMBOL_BYTES)
        if data[strings + name : strings + name + len(symbol) + 1] == symbol + b"\0":
            return _in_memory(path, address)
    raise ValueError("no such import")


def _file_offset(loads: list[tuple[int, int, int]], address: int) -> int:
    for va, offset, length in loads:
        if va <= address < va + length:
            return address - va + offset
    raise ValueError("address outside the file")


def _relocations(
    data: bytes, loads: list[tuple[int, int, int]], dynamic: dict[int, int]
) -> Iterator[tuple[int, int]]:
    """Yield ``(address, symbol number)`` of the calls, bound late or at once."""
    for table, size in ((_DT_JMPREL, _DT_PLTRELSZ), (_DT_RELA, _DT_RELASZ)):
        if table in dynamic:
            start = _file_offset(loads, dynamic[table])
            for at in range(start, start + dynamic.get(size, 0), _RELOCATION.size):
                address, info, _ = _RELOCATION.unpack_from(data, at)
                yield address, info >> 32


def _in_memory(path: Path, address: int) -> Slot:
    areas = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    bases = [
        int(fields[0].split("-")[0], 16)
        for fields in areas
        if len(fields) >= 6 and fields[5] == str(path) and int(fields[2], 16) == 0
    ]
    if not bases:
        raise ValueError("the file is not loaded")
    at = bases[0] + address
    for fields in areas:
        first, last = (int(text, 16) for text in fields[0].split("-"))
        if first <= at < last and fields[1].startswith("r"):
            return Slot(at, read_only="w" not in fields[1])
    raise ValueError("the import table is not in memory")
