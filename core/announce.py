"""What peers tell each other about an arena: columns of entries, grouped by directory.

Values only. Columns instead of objects, because a hundred thousand entries travel at once
(spec 8 *names visible on a peer*). `net.codec` puts them on the wire and checks every field of what
comes in; `core.history` makes them; `core.cache` applies them.
"""

from __future__ import annotations

import enum
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields

from core.choice import EntryRow
from core.types import RelPath


class Phase(enum.IntEnum):
    """Which part of a subscription a batch belongs to."""

    FOLLOW = 0
    """Changes after the position the subscriber gave."""
    CATCHUP_START = 1
    """A full listing begins (and this batch may already hold entries)."""
    CATCHUP = 2
    """More of the full listing."""
    CATCHUP_COMPLETE = 3
    """The listing is complete (this batch may hold its last entries): what was not listed is gone."""

    @property
    def ends_listing(self) -> bool:
        """Whether the subscriber is up to date, as far as is known, after such a batch."""
        return self in (Phase.FOLLOW, Phase.CATCHUP_COMPLETE)


@dataclass(slots=True)
class Group:
    """Entries of one directory; all lists are parallel.

    ``hashes[i]`` is 32 bytes or ``b""`` (no hash: directory, link, or not hashed yet);
    ``holdings``, ``kinds`` are values of `core.types.Holding` and `core.types.Kind`;
    ``targets`` is empty, or parallel when any entry is a symlink.
    ``renamed_from`` is empty, or parallel: full old path of an entry that was renamed, else ``b""``.
    """

    directory: RelPath
    names: list[bytes] = field(default_factory=list)
    holdings: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    mtimes_ns: list[int] = field(default_factory=list)
    modes: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    vectors: list[bytes] = field(default_factory=list)
    targets: list[bytes] = field(default_factory=list)
    renamed_from: list[bytes] = field(default_factory=list)

    def without(self, taken: Container[int]) -> Group:
        """Return the group without the entries at these positions."""
        keep = [at for at in range(len(self.names)) if at not in taken]
        if len(keep) == len(self.names):
            return self
        columns = (getattr(self, column.name) for column in fields(self)[1:])
        return Group(self.directory, *([column[at] for at in keep] if column else [] for column in columns))


@dataclass(slots=True)
class Batch:
    """One message of a subscription; ``seq`` is the position after it, in the history of ``uuid``."""

    uuid: bytes
    seq: int
    phase: Phase
    groups: list[Group]

    def count(self) -> int:
        """Return the number of entries."""
        return sum(len(group.names) for group in self.groups)


def entries_of(group: Group, peer: int) -> Iterator[tuple[bytes, EntryRow]]:
    """Yield the names of a group, each with the entry of the peer."""
    targets = group.targets or [b""] * len(group.names)
    for name, holding, kind, size, mtime_ns, mode, content, vector, target in zip(
        group.names,
        group.holdings,
        group.kinds,
        group.sizes,
        group.mtimes_ns,
        group.modes,
        group.hashes,
        group.vectors,
        targets,
        strict=True,
    ):
        yield (
            name,
            EntryRow(peer, holding, kind, size, mtime_ns, mode, content or None, vector, target or None),
        )
