"""What churten does about a path: from its mark and what is held to the next action.

Pure; the table of spec 4 §Marks. INVARIANT: no rule chooses an action that gives up content before
its replacement is complete and verified here, or other peers said that they hold it durably (and those are
asked again before anything is done, `core.leases`).
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from core.choice import Flag
from core.types import Holding, Kind, Mark


class Action(enum.Enum):
    """The next step for a node."""

    NOTHING = "nothing"
    DOWNLOAD = "download"
    """Fetch the whole content into a verified blob."""
    CACHE = "cache"
    """The blob is whole and verified: record that it is held."""
    REALIZE = "realize"
    """Put the shown version into the datadir."""
    DELETE = "delete"
    """The path was deleted elsewhere: move the real file to the trash."""
    RENAME = "rename"
    """A peer renamed the path: rename the real file (never decided here; see `core.moving`)."""
    ADJUST = "adjust"
    """Only mode or time of the real file differ from the shown version."""
    UNREALIZE = "unrealize"
    """Nothing here wants it as a real file: make it a blob."""
    RELEASE = "release"
    """Nothing here wants it kept: let the blob be evicted again."""


_CONFLICT = int(Flag.CONFLICT)
_DOUBTED = int(Flag.UNREADABLE | Flag.DAMAGED)


class Case(NamedTuple):
    """Everything a decision depends on. A tuple, for there are many."""

    mark: Mark
    kind: Kind
    """Of the shown version; NONE when the path is deleted."""
    hashed: bool
    """The shown version has a hash (or needs none: a directory or link)."""
    shown_local: int
    """`Holding` of the shown version here: 0, REAL or CACHED."""
    local_holding: int | None
    """`Holding` of this host's own entry; None without one."""
    blob_verified: bool
    flags: int
    has_datadir: bool
    same_meta: bool = True
    """Mode and mtime of the real file are those of the shown version."""
    implicit: bool = False
    """A directory that nobody has, or that was deleted elsewhere, shown because something is still in it."""
    protected: bool = False
    """The blob is out of reach of eviction."""
    elsewhere: bool = False
    """As many peers as have to said that they hold the shown version durably."""


def decide(case: Case) -> Action:
    """Return what to do next; called again after each step until it is NOTHING."""
    real = case.local_holding == Holding.REAL
    if case.flags & _CONFLICT or case.implicit:
        return Action.NOTHING
    if case.kind is Kind.NONE:
        return Action.DELETE if real and case.has_datadir else Action.NOTHING
    if case.has_datadir and (case.mark is Mark.OWN or real):
        return _real_wanted(case)
    if case.mark is Mark.WATCH and case.protected and case.shown_local and case.elsewhere:
        return Action.RELEASE
    if case.mark is Mark.WATCH or case.kind is not Kind.FILE or case.shown_local:
        return Action.NOTHING
    if not case.hashed:
        return Action.NOTHING
    return Action.CACHE if case.blob_verified else Action.DOWNLOAD


def _real_wanted(case: Case) -> Action:
    """A real file is wanted, or there is an outdated one that the shown version replaces."""
    if case.shown_local == Holding.REAL:
        if not case.same_meta:
            return Action.ADJUST
        wanted = case.mark is Mark.OWN or case.kind is not Kind.FILE or not case.hashed
        unsure = not case.elsewhere or case.flags & _DOUBTED
        return Action.NOTHING if wanted or unsure else Action.UNREALIZE
    if case.kind is not Kind.FILE:
        return Action.REALIZE
    if not case.hashed:
        return Action.NOTHING
    return Action.REALIZE if case.blob_verified else Action.DOWNLOAD
