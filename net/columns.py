"""Announcements in columns: a `Batch` as packed bytes per field, and back with every field checked.

Pure. Packed columns instead of lists of objects: what is done per entry is one slice for its name and
one for its hash (docs/protocol.md §Announcements).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from core.announce import Batch, Group, Phase
from core.errors import LocalProtocolError, PathError, RemoteProtocolError
from core.paths import check_component, check_path
from core.types import HASH_BYTES, Holding, Kind, RelPath
from core.versions import is_canonical
from net.messages import MAX_ENTRIES

MAX_BATCH_BYTES = 768 * 1024
"""LIMIT: estimated bytes of a batch before compression; with the rest of the message below 1 MiB."""
_MAX_SIZE = (1 << 63) - 1
_MAX_MODE = 0o7777
_MAX_TARGET = 4096
"""LIMIT: text of a link, PATH_MAX of Linux."""
_UUID_BYTES = 16
_ENTRY_BYTES = 1 + 1 + 1 + 8 + 8 + 2 + 1 + HASH_BYTES + 2 + 2 + 2 + 4
_HOLDINGS = frozenset(map(int, Holding))
_KINDS = frozenset(map(int, Kind))
_WIDTHS = {"B": 1, "H": 2, "I": 4, "Q": 8, "q": 8}


@dataclass(frozen=True, slots=True)
class Columns:
    """The fields of `Announcements` in ``wire.capnp``, in its order."""

    uuid: bytes
    seq: int
    phase: int
    directory_counts: bytes
    directory_lengths: bytes
    directories: bytes
    name_lengths: bytes
    names: bytes
    holdings: bytes
    kinds: bytes
    sizes: bytes
    mtimes_ns: bytes
    modes: bytes
    hashed: bytes
    hashes: bytes
    vector_lengths: bytes
    vectors: bytes
    vector_index: bytes
    target_lengths: bytes
    targets: bytes
    renamed_lengths: bytes
    renamed: bytes


def pack(batch: Batch) -> Columns:
    """Return the columns of a batch that `split` made.

    Raises:
        LocalProtocolError: a value does not fit its column, or columns differ in length.
    """
    groups = batch.groups
    try:
        return _pack(batch, groups)
    except (struct.error, ValueError, TypeError) as error:
        raise LocalProtocolError(f"announcement cannot be encoded: {error}") from error


def _pack(batch: Batch, groups: list[Group]) -> Columns:
    chain = itertools.chain.from_iterable
    counts = [len(group.names) for group in groups]
    names = list(chain(g.names for g in groups))
    hashes = list(chain(g.hashes for g in groups))
    vectors = list(chain(g.vectors for g in groups))
    distinct = {vector: index for index, vector in enumerate(dict.fromkeys(vectors))}
    directories = [group.directory for group in groups]
    targets = _sparse([g.targets for g in groups], counts)
    renamed = _sparse([g.renamed_from for g in groups], counts)
    columns = Columns(
        uuid=batch.uuid,
        seq=batch.seq,
        phase=int(batch.phase),
        directory_counts=_numbers("I", counts),
        directory_lengths=_numbers("I", list(map(len, directories))),
        directories=b"".join(directories),
        name_lengths=bytes(map(len, names)),
        names=b"".join(names),
        holdings=bytes(chain(g.holdings for g in groups)),
        kinds=bytes(chain(g.kinds for g in groups)),
        sizes=_numbers("Q", list(chain(g.sizes for g in groups))),
        mtimes_ns=_numbers("q", list(chain(g.mtimes_ns for g in groups))),
        modes=_numbers("H", list(chain(g.modes for g in groups))),
        hashed=bytes(map(bool, hashes)),
        hashes=b"".join(hashes),
        vector_lengths=_numbers("H", list(map(len, distinct))),
        vectors=b"".join(distinct),
        vector_index=_numbers("H", [distinct[vector] for vector in vectors]),
        target_lengths=_numbers("H", list(map(len, targets))),
        targets=b"".join(targets),
        renamed_lengths=_numbers("I", list(map(len, renamed))),
        renamed=b"".join(renamed),
    )
    _check_parallel(columns, len(names))
    return columns


def _check_parallel(columns: Columns, count: int) -> None:
    lengths = {
        len(columns.holdings),
        len(columns.kinds),
        len(columns.sizes) // 8,
        len(columns.mtimes_ns) // 8,
        len(columns.modes) // 2,
        len(columns.hashed),
        len(columns.vector_index) // 2,
    }
    if lengths != {count} or len(columns.hashes) != sum(columns.hashed) * HASH_BYTES:
        raise LocalProtocolError("columns of an announcement differ in length")


def _numbers(kind: str, values: Sequence[int]) -> bytes:
    return struct.pack(f"<{len(values)}{kind}", *values)


def _sparse(columns: list[list[bytes]], counts: list[int]) -> list[bytes]:
    if not any(columns):
        return []
    return [
        value
        for column, count in zip(columns, counts, strict=True)
        for value in (column or itertools.repeat(b"", count))
    ]


def unpack(columns: Columns) -> Batch:
    """Return the batch of columns that came from a peer.

    Raises:
        RemoteProtocolError: any field of any entry is not what it must be.
    """
    try:
        return _unpack(columns)
    except (PathError, struct.error) as error:
        raise RemoteProtocolError(f"bad announcement: {error}") from error


def _unpack(c: Columns) -> Batch:
    if len(c.uuid) != _UUID_BYTES or c.phase not in Phase._value2member_map_ or c.seq > _MAX_SIZE:
        raise RemoteProtocolError("announcement of no history")
    count = len(c.name_lengths)
    if count > MAX_ENTRIES:
        raise RemoteProtocolError(f"announcement of {count} entries")
    names = _names(c)
    holdings, kinds = list(_column(c.holdings, "B", count)), list(_column(c.kinds, "B", count))
    if not (_HOLDINGS.issuperset(holdings) and _KINDS.issuperset(kinds)):
        raise RemoteProtocolError("announcement of an unknown kind or holding")
    sizes, modes = _column(c.sizes, "Q", count), _column(c.modes, "H", count)
    if count and (max(sizes) > _MAX_SIZE or max(modes) > _MAX_MODE):
        raise RemoteProtocolError("announcement of an impossible size or mode")
    fields: list[Sequence[int] | Sequence[bytes]] = [
        names,
        holdings,
        kinds,
        sizes,
        _column(c.mtimes_ns, "q", count),
        modes,
        _hashes(c, count),
        _vectors(c, count),
        _texts(c.target_lengths, "H", c.targets, count, _MAX_TARGET),
        _renamed(c, count),
    ]
    return Batch(c.uuid, c.seq, Phase(c.phase), list(_groups(c, count, fields)))


def _groups(c: Columns, count: int, fields: list[Sequence[int] | Sequence[bytes]]) -> Iterator[Group]:
    total = len(c.directory_counts) // 4
    if total > MAX_ENTRIES:
        raise RemoteProtocolError(f"announcement of {total} directories")
    counts = _column(c.directory_counts, "I", total)
    lengths = _column(c.directory_lengths, "I", total)
    if sum(counts) != count:
        raise RemoteProtocolError("announcement whose directories do not cover its entries")
    at = 0
    for directory, size in zip(_cut(c.directories, lengths), counts, strict=True):
        path = check_path(directory)
        stop = at + size
        yield Group(path, *(list(field[at:stop]) for field in fields))  # type: ignore[arg-type]
        at = stop


def _column(data: bytes, kind: str, count: int) -> tuple[int, ...]:
    if len(data) != count * _WIDTHS[kind]:
        raise RemoteProtocolError("columns of an announcement differ in length")
    return struct.unpack(f"<{count}{kind}", data)


def _cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    if sum(lengths) != len(data):
        raise RemoteProtocolError("column of an announcement has another length than stated")
    offsets = list(itertools.accumulate(lengths, initial=0))
    return [data[start:stop] for start, stop in itertools.pairwise(offsets)]


def _names(c: Columns) -> list[bytes]:
    # The rules of check_component for all names at once; it gives the error for the one that is bad.
    names = _cut(c.names, c.name_lengths)
    odd = b"/" in c.names or b"\0" in c.names or b"." in names or b".." in names
    if odd or 0 in c.name_lengths:
        for name in names:
            check_component(name)
    return names


def _hashes(c: Columns, count: int) -> list[bytes]:
    if len(c.hashed) != count or max(c.hashed, default=0) > 1:
        raise RemoteProtocolError("columns of an announcement differ in length")
    if len(c.hashes) != sum(c.hashed) * HASH_BYTES:
        raise RemoteProtocolError("announcement with a hash of another length")
    hashes = iter([c.hashes[at : at + HASH_BYTES] for at in range(0, len(c.hashes), HASH_BYTES)])
    return [next(hashes) if has else b"" for has in c.hashed]


def _vectors(c: Columns, count: int) -> list[bytes]:
    distinct = len(c.vector_lengths) // 2
    vectors = _cut(c.vectors, _column(c.vector_lengths, "H", distinct))
    index = _column(c.vector_index, "H", count)
    if distinct > count or (count and max(index) >= distinct):
        raise RemoteProtocolError("announcement that refers to no vector")
    if not all(map(is_canonical, vectors)):
        raise RemoteProtocolError("announcement with a malformed vector")
    return [vectors[i] for i in index]


def _texts(lengths: bytes, kind: str, data: bytes, count: int, longest: int) -> list[bytes]:
    if not lengths and not data:
        return []
    values = _column(lengths, kind, count)
    if max(values, default=0) > longest or b"\0" in data:
        raise RemoteProtocolError("announcement with an impossible link or rename")
    return _cut(data, values)


def _renamed(c: Columns, count: int) -> list[bytes]:
    paths = _texts(c.renamed_lengths, "I", c.renamed, count, MAX_BATCH_BYTES)
    checked: set[bytes] = {b""}  # directories: many files were renamed with theirs
    for path in paths:
        directory, slash, name = path.rpartition(b"/")
        if directory not in checked or (slash and not directory):
            check_path(path)
            checked.add(directory)
        elif path:
            check_component(name)
    return paths


def split(batch: Batch, previous_seq: int) -> Iterator[Batch]:
    """Cut a batch into ones within the limits; all but the last stand at ``previous_seq``.

    So a receiver that stores the position with each part never claims what it has not got.
    """
    parts = list(_parts(batch.groups))
    for number, groups in enumerate(parts, start=1):
        last = number == len(parts)
        phase = batch.phase
        late_start = phase is Phase.CATCHUP_START and number > 1
        early_end = phase is Phase.CATCHUP_COMPLETE and not last
        if late_start or early_end:
            phase = Phase.CATCHUP
        yield Batch(batch.uuid, batch.seq if last else previous_seq, phase, groups)


def _parts(groups: list[Group]) -> Iterator[list[Group]]:
    if sum(len(g.names) for g in groups) <= MAX_ENTRIES and sum(map(_weight, groups)) <= MAX_BATCH_BYTES:
        yield groups
        return
    part: list[Group] = []
    entries = weight = 0
    for piece in _pieces(groups):
        size, count = _weight(piece), max(1, len(piece.names))
        if part and (entries + count > MAX_ENTRIES or weight + size > MAX_BATCH_BYTES):
            yield part
            part, entries, weight = [], 0, 0
        part.append(piece)
        entries += count
        weight += size
    yield part


def _pieces(groups: list[Group]) -> Iterator[Group]:
    # Groups of the size of an entry are the simplest pieces, but slow to make: halve instead.
    for group in groups:
        count = len(group.names)
        if count <= 1 or (count <= MAX_ENTRIES // 8 and _weight(group) <= MAX_BATCH_BYTES // 8):
            yield group
        else:
            yield from _pieces([_cut_group(group, 0, count // 2), _cut_group(group, count // 2, count)])


def _cut_group(g: Group, start: int, stop: int) -> Group:
    return Group(
        RelPath(g.directory),
        g.names[start:stop],
        g.holdings[start:stop],
        g.kinds[start:stop],
        g.sizes[start:stop],
        g.mtimes_ns[start:stop],
        g.modes[start:stop],
        g.hashes[start:stop],
        g.vectors[start:stop],
        g.targets[start:stop],
        g.renamed_from[start:stop],
    )


def _weight(group: Group) -> int:
    """Return an upper bound of the bytes a group takes in a message."""
    fixed = 8 + len(group.directory) + len(group.names) * _ENTRY_BYTES
    columns = (group.names, set(group.vectors), group.targets, group.renamed_from)
    return fixed + sum(sum(map(len, column)) for column in columns)
