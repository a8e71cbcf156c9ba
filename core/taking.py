"""Taking files out of the datadir that nobody has open, so that their content can become a blob.

Blocking I/O: run it in a worker. A blob must never change, so a file is taken only while the kernel says
that no program has it open or mapped (a lease, `core.filelease`); whoever opens it between
the look and the rename breaks the lease, which is seen, and the file goes back where it was.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from core import filelease, markattr
from core.blobdisk import LocalDisk
from core.disk import DIR_FLAGS, READ_FLAGS
from core.errors import StoreError
from core.paths import split
from core.placing import Directories, Identity, rename_noreplace
from core.types import RelPath

_BLOB_MODE = 0o600
_OTHER = b".link"
"""Added to the name of one of several names of a file, of which a copy was made."""


@dataclass(frozen=True, slots=True)
class Taking:
    """A real file to be moved out of the datadir to ``to``, on the same filesystem, if it is as expected."""

    path: RelPath
    expected: Identity
    to: bytes


@dataclass(frozen=True, slots=True)
class Taken:
    """Outcome: ``disk_bytes`` of the file that is at its new place, or why it is not there."""

    disk_bytes: int = 0
    problem: str = ""
    changed: bool = False
    """It is not the file that was expected: the index has to look at it first."""
    displaced: bool = False
    """It was taken and could not be put back: it is at the new place, and has to go to the trash."""

    @property
    def done(self) -> bool:
        """Whether it was taken."""
        return not self.problem and not self.changed


def take(datadir: os.PathLike[str], takings: Sequence[Taking]) -> list[Taken]:
    """Take files out; parallel to the result. One that cannot be taken does not stop the others.

    The leases are held, and the files open, until all are taken: not more than some hundred at a time.

    Raises:
        OSError: the datadir itself cannot be opened.
    """
    with ExitStack() as stack:
        root_fd = os.open(datadir, DIR_FLAGS)
        stack.callback(os.close, root_fd)
        directories = Directories(root_fd, stack)
        held = [_guarded(directories, taking, stack) for taking in takings]
        # RACE: who looked the name up before the rename may only now get to open the file, and waits for the
        # lease. He is seen here, some time later; after this, nothing leads to the file but its new name.
        return [
            _settled(taking, *one) if isinstance(one, tuple) else one
            for taking, one in zip(takings, held, strict=True)
        ]


_Held = tuple[int, int, Taken]
"""Directory the file was in, descriptor with the lease, and what was done."""


def _guarded(directories: Directories, taking: Taking, stack: ExitStack) -> Taken | _Held:
    parent, name = split(taking.path)
    try:
        at = directories.open(parent, make=False)
        fd = os.open(name, READ_FLAGS, dir_fd=at)
    except BlockingIOError:
        return Taken(problem=filelease.OPEN)  # somebody else has a lease on it
    except (FileNotFoundError, NotADirectoryError):
        return Taken(changed=True)
    except OSError as error:
        return Taken(problem=error.strerror or str(error))
    stack.callback(os.close, fd)  # and with it the lease
    try:
        taken = _take(at, name, fd, taking)
    except (OSError, StoreError) as error:
        return Taken(problem=str(error))
    return (at, fd, taken) if taken.done else taken


def _take(at: int, name: bytes, fd: int, taking: Taking) -> Taken:
    if not _is_expected(fd, taking.expected):
        return Taken(changed=True)
    try:
        if not filelease.lease(fd, filelease.ALONE):
            return Taken(problem=filelease.OPEN)
    except OSError as error:
        return Taken(problem=f"this filesystem cannot tell whether a program has it open: {error.strerror}")
    # RACE: it may have been written to and closed between the first look and the lease.
    found = os.fstat(fd)
    if not _is_expected(fd, taking.expected):
        return Taken(changed=True)
    if found.st_nlink > 1:
        # Whoever writes to its other names must not write to the blob.
        LocalDisk().copy(fd, taking.expected.size, at, taking.to)
    rename_noreplace(at, name, at, taking.to + _OTHER if found.st_nlink > 1 else taking.to)
    return Taken(found.st_blocks * 512)


def _settled(taking: Taking, at: int, fd: int, taken: Taken) -> Taken:
    """Make sure of a file that was taken, or put it back."""
    name, other = split(taking.path)[1], taking.to + _OTHER
    copied = os.path.lexists(other)
    if filelease.kept(fd, filelease.ALONE) and _is_expected(fd, taking.expected):
        if copied:
            os.unlink(other)
        with suppress(OSError):  # its mode and attribute are nothing to a blob
            os.chmod(taking.to, _BLOB_MODE)
        markattr.clear(taking.to)
        return taken
    if copied:
        os.replace(other, taking.to)
    try:
        rename_noreplace(at, taking.to, at, name)
    except OSError as error:
        # RACE: another file got the name meanwhile. The one that was there is nowhere else.
        return Taken(problem=error.strerror or str(error), displaced=True)
    return Taken(problem=filelease.OPEN)


def put_back(datadir: os.PathLike[str], taking: Taking) -> bool:
    """Put a file that was taken back where it was; False: it is still at ``to``, for its place is not free.

    Raises:
        OSError: the datadir cannot be opened.
    """
    parent, name = split(taking.path)
    with ExitStack() as stack:
        root_fd = os.open(datadir, DIR_FLAGS)
        stack.callback(os.close, root_fd)
        try:
            at = Directories(root_fd, stack).open(parent, make=False)
            rename_noreplace(at, taking.to, at, name)
        except FileExistsError:
            if not taking.expected.matches(os.lstat(name, dir_fd=at)):
                return False
            os.unlink(taking.to)  # what is there is the very file of which this is a copy
        except OSError:
            return False
        return True


def _is_expected(fd: int, expected: Identity) -> bool:
    found = os.fstat(fd)
    return stat.S_ISREG(found.st_mode) and expected.matches(found)
