"""Where a loaded shared object keeps the addresses of the functions it imports (ELF, 64-bit)."""

from __future__ import annotations

import ctypes
import struct
from pathlib import Path

_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_PLTRELSZ, _DT_STRTAB, _DT_SYMTAB, _DT_JMPREL = 2, 5, 6, 23


def import_slot(path: Path, symbol: bytes) -> ctypes.c_uint64:
    """Return the slot of the import table of a loaded ELF file through which it calls ``symbol``.

    Raises:
        ValueError: the file is no 64-bit little-endian ELF, has no such slot, or it cannot be written.
    """
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit ELF file")
    start, size_of, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, start + i * size_of) for i in range(count)]
    loads = [(va, offset, length) for kind, _, offset, va, _, length, _, _ in headers if kind == _PT_LOAD]

    def file_offset(address: int) -> int:
        for va, offset, length in loads:
            if va <= address < va + length:
                return int(address - va + offset)
        raise ValueError("address outside the file")

    offset, length = next((h[2], h[5]) for h in headers if h[0] == _PT_DYNAMIC)
    dynamic = dict(struct.iter_unpack("<QQ", data[offset : offset + length]))
    strings, symbols = file_offset(dynamic[_DT_STRTAB]), file_offset(dynamic[_DT_SYMTAB])
    relocations = file_offset(dynamic[_DT_JMPREL])
    for at in range(relocations, relocations + dynamic[_DT_PLTRELSZ], 24):
        address, info, _ = struct.unpack_from("<QQq", data, at)
        (name,) = struct.unpack_from("<I", data, symbols + (info >> 32) * 24)
        if data[strings + name : strings + name + len(symbol) + 1] == symbol + b"\0":
            return _writable_word(path, address)
    raise ValueError("no such import")


def _writable_word(path: Path, address: int) -> ctypes.c_uint64:
    base = None
    areas = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    for fields in areas:
        if len(fields) >= 6 and fields[5] == str(path) and int(fields[2], 16) == 0:
            base = int(fields[0].split("-")[0], 16)
            break
    if base is None:
        raise ValueError("the file is not mapped where it was loaded from")
    for fields in areas:
        first, last = (int(text, 16) for text in fields[0].split("-"))
        if first <= base + address < last and "w" in fields[1]:
            return ctypes.c_uint64.from_address(base + address)
    raise ValueError("the import table is read-only")
