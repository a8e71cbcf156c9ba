"""Bugs put in on purpose, to see the harness fail. By patching here; the product knows nothing of them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import core.choice
import core.evicting
import core.placing
import core.unrealizer
from core.placing import Placed, Placement, rename_noreplace
from core.types import Vector


def _keep_own_vector(vectors: Iterable[Vector]) -> Vector:
    """Stand in for `core.versions.merge`: equal contents do not take the merged vector."""
    return next(iter(vectors), Vector(b""))


def _drop_and_place(at: int, name: bytes, placement: Placement, source: bytes) -> Placed:
    """Stand in for `core.placing._swap_in`: what is at the name is removed before, whatever it is."""
    ino = os.lstat(source).st_ino
    with suppress(FileNotFoundError, IsADirectoryError):
        os.unlink(name, dir_fd=at)
    try:
        rename_noreplace(at, source, at, name)
    except FileExistsError:
        return Placed(changed=True)
    return Placed(ino=ino)


async def _granted_by_all(arena: str, wanted: Sequence[Any], holders: object, copies: int) -> dict[int, int]:
    """Stand in for `core.leases.ask`: nobody is asked, all confirm."""
    return {one.node: copies for one in wanted}


_Patch = tuple[object, str, Callable[..., Any]]

BUGS: dict[str, tuple[_Patch, ...]] = {
    "vector-not-merged": ((core.choice, "merge", _keep_own_vector),),
    "old-content-dropped": ((core.placing, "_swap_in", _drop_and_place),),
    "lease-skipped": ((core.unrealizer, "ask", _granted_by_all), (core.evicting, "ask", _granted_by_all)),
}


@contextlib.contextmanager
def put_in(name: str | None) -> Iterator[None]:
    """Have a bug for as long as this lasts; None: none."""
    with contextlib.ExitStack() as undo:
        for owner, attribute, wrong in BUGS[name] if name is not None else ():
            undo.callback(setattr, owner, attribute, getattr(owner, attribute))
            setattr(owner, attribute, wrong)
        yield
