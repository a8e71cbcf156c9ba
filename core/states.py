"""The one word that users see for a path (spec 1 §Words). Pure.

Conflicts and running transfers are shown beside it, from the node's flags and from the jobs.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.types import FileState, Kind, Mark


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides the state of a path.

    ``real``: shown from the datadir. ``held_bytes``: of its content in the blob store, of which
    ``whole`` says complete and verified. ``held_elsewhere``: a peer, connected or not, holds the shown
    version; ``reachable``: a connected one does.
    """

    kind: Kind
    real: bool
    held_bytes: int
    whole: bool
    mark: Mark
    held_elsewhere: bool
    reachable: bool


def state_of(facts: Facts) -> FileState:
    """Return the state of a path."""
    if facts.kind is not Kind.FILE:
        return FileState.REAL if facts.real else FileState.ONLINE
    if facts.real:
        return FileState.REAL if facts.held_elsewhere else FileState.ONLY_HERE
    if facts.whole:
        return FileState.CACHED if facts.mark is Mark.WATCH else FileState.KEPT
    if facts.held_bytes:
        return FileState.PARTIAL
    return FileState.ONLINE if facts.reachable else FileState.UNAVAILABLE


def state_with_contents(own: FileState, mark: Mark, size: int, held: int) -> FileState:
    """Return the state of a directory that has ``size`` bytes of files in it, ``held`` of them here.

    ``own`` is that of the directory itself: it says nothing of what is in it.
    """
    if not size:
        return own
    if not held:
        return FileState.ONLINE
    if held < size:
        return FileState.PARTIAL
    if own is FileState.REAL:
        return own
    return FileState.CACHED if mark is Mark.WATCH else FileState.KEPT
