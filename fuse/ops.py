"""The handlers: thin, each answers one request of the kernel. Mount thread.

Metadata and what is in the page cache is answered inline; only missing content and marks cross to
the engine, and only those waits.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NoReturn, TypeVar, TypeVarTuple

import pyfuse3
import trio
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    RequestContext,
)

from core.errors import PathReadOnlyError
from core.loops import TrioThread
from core.paths import NAME_MAX
from core.ports import MountBackend
from core.reader import TreeReader
from core.types import Inode, Kind, Mark, RelPath
from fuse import xattrs
from fuse.attrs import Attributes
from fuse.content import ContentOpener, KernelCache, Opened
from fuse.guard import handler, waiting_handler
from fuse.handles import Handle, Handles
from fuse.libfuse import Session
from fuse.sources import Buffer, BytesSource
from fuse.view import STATUS_INODE, View

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PAGE = 256
"""LIMIT: rows read at once for a listing; the kernel's buffer of 32 KiB holds about 190 entries."""

_DOT, _DOT_DOT = 98, 99
"""Where a listing goes on after ``.`` and ``..``: reserved inodes, which no entry has."""

_CALL_S = 5.0
"""LIMIT: how long an application waits for the engine to set a mark or give its status."""
_PLACED_S = (0.002, 0.005, 0.02, 0.05, 0.1)
"""LIMIT: waits for a file that is being moved between datadir and blob store; as long if it was deleted."""


class MountOps(pyfuse3.Operations):
    """Serves one mount."""

    def __init__(
        self,
        tree: TreeReader,
        view: View,
        opener: ContentOpener,
        cache: KernelCache,
        backend: MountBackend,
        engine: TrioThread,
        session: Session,
    ) -> None:
        """Serve ``view``; what it takes from the engine goes through ``backend``."""
        super().__init__()
        self._tree, self._view, self._opener, self._cache = tree, view, opener, cache
        self._backend, self._engine, self._session = backend, engine, session
        self._attributes = Attributes()
        self._reused = self._attributes.blank()
        self.handles = Handles()

    def on_bug(self, reason: str) -> None:
        """See `fuse.guard.Guarded`."""
        self._engine.post(self._backend.degraded, reason)

    # -- metadata

    @handler
    def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """Answer ``lookup``."""
        return self._attributes.of(self._view.child(parent_inode, name))

    @handler
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Answer ``getattr``."""
        return self._attributes.of(self._view.attrs(inode))

    @handler
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Answer ``readlink``."""
        version = self._view.generated(inode)
        if version is not None and version.kind is Kind.SYMLINK:
            return FileNameT(version.target)
        place = self._view.place(inode)
        if place is None or place.node.kind != Kind.SYMLINK:
            raise FUSEError(errno.EINVAL)
        return place.node.target or b""

    @handler
    def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        """Answer ``access``; the kernel has compared the permission bits."""
        self._view.attrs(inode)
        return True

    @handler
    def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Answer ``statfs`` with the filesystem of the arena's workdir; of the first arena's elsewhere."""
        inode = self._session.inode
        place = self._view.place(inode) if inode else None
        arenas = self._tree.arenas
        config = self._tree.config(place.arena) if place else next(iter(arenas), None)
        found = os.statvfs(config.workdir if config else "/")
        data = pyfuse3.StatvfsData()
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
        ):
            setattr(data, name, getattr(found, name))
        data.f_namemax = NAME_MAX
        return data

    # -- directories

    @handler
    def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Answer ``opendir``: with ENOSYS the kernel caches listings and asks no more (decision 0002)."""
        if self._session.active:
            raise FUSEError(errno.ENOSYS)
        return inode

    @handler
    def readdir(self, fh: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Answer ``readdirplus``. ``fh`` is the inode of the directory, ``start_id`` that of an entry."""
        if start_id in (0, _DOT, _DOT_DOT):
            if not self._list_dots(fh, start_id, token):
                return
            start_id = 0
        entry, fill, reply = self._reused, self._attributes.fill, pyfuse3.readdir_reply
        rows = self._view.listing(fh, start_id, _PAGE)
        while rows:
            for row in rows:
                if not reply(token, row.name, fill(entry, row), row.id):
                    return
            if len(rows) < _PAGE:
                return
            rows = self._view.listing(fh, rows[-1].id, _PAGE)

    def _list_dots(self, directory: FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> bool:
        """List ``.`` and ``..`` as far as they are not yet; says whether there was room.

        Without them an empty directory would be cached as a listing of no bytes, which the kernel does
        not drop when it is told to forget its pages: what comes later would never be listed.
        """
        row = self._view.attrs(directory)
        for name, offset in ((b".", _DOT), (b"..", _DOT_DOT)):
            entry = self._attributes.fill(self._reused, row)
            if start_id < offset and not pyfuse3.readdir_reply(token, FileNameT(name), entry, offset):
                return False
        return True

    @handler
    def releasedir(self, fh: FileHandleT) -> None:
        """Answer ``releasedir``."""

    @handler
    def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """Answer ``fsyncdir``: nothing is pending."""

    # -- reading

    @waiting_handler
    async def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Answer ``open``."""
        if flags & (os.O_ACCMODE | os.O_TRUNC | os.O_APPEND) != os.O_RDONLY:
            raise PathReadOnlyError("the mount is read-only")
        arena, opened = await self._open(inode)
        direct, keep = self._cache.opened(inode, opened.version)
        number = self.handles.add(Handle(arena, inode, opened.source, direct, opened.content))
        return FileInfo(fh=number, direct_io=direct, keep_cache=keep)

    async def _open(self, inode: InodeT) -> tuple[str, Opened]:
        if inode == STATUS_INODE:
            return "", Opened(BytesSource(await self._ask(self._backend.status_json)), None)
        version = self._view.generated(inode)
        if version is not None and version.kind is Kind.FILE:
            return version.arena, self._opener.open_version(version)
        for wait_s in _PLACED_S:
            try:
                return self._open_shown(inode)
            except (FileNotFoundError, BlockingIOError):
                # RACE: it is on its way between datadir and blob store, which takes some milliseconds.
                await trio.sleep(wait_s)
        return self._open_shown(inode, wherever=True)

    def _open_shown(self, inode: InodeT, *, wherever: bool = False) -> tuple[str, Opened]:
        place = self._view.place(inode)
        if place is None or place.node.kind == Kind.DIR:
            raise FUSEError(errno.EISDIR)
        try:
            return place.arena, self._opener.open(place)
        except FileNotFoundError:
            elsewhere = self._opener.open_missing(place) if wherever else None
            if elsewhere is None:
                raise
            return place.arena, elsewhere

    @waiting_handler
    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Answer ``read``."""
        request = self._session.request
        handle = self.handles.get(fh)
        if handle.content is not None and handle.tell_use(time.monotonic()):
            self._engine.post(self._backend.used, handle.arena, Inode(handle.inode), handle.content)
        data = handle.source.read_now(off, size)
        if data is None:
            data = await self._wait_for(handle, off, size, request)
        return data  # type: ignore[return-value]  # pyfuse3 takes any buffer

    async def _wait_for(self, handle: Handle, offset: int, size: int, request: int) -> Buffer:
        with trio.CancelScope() as scope:
            self.handles.waiting(scope)
            if self._session.active:
                self._session.on_interrupt(request, scope.cancel)
            try:
                return await handle.source.read(offset, size)
            finally:
                self._session.done(request)
                self.handles.done(scope)
        # A program repeats a read that gave EINTR; only its own signal may end in that.
        raise FUSEError(errno.ENOTCONN if self.handles.ending else errno.EINTR)

    @handler
    def flush(self, fh: FileHandleT) -> None:
        """Answer ``flush``: nothing is pending."""

    @handler
    def fsync(self, fh: FileHandleT, datasync: bool) -> None:
        """Answer ``fsync``: nothing is pending."""

    @handler
    def release(self, fh: FileHandleT) -> None:
        """Answer ``release``."""
        handle = self.handles.pop(fh)
        if handle is not None:
            self._cache.closed(handle.inode, direct=handle.direct)
            handle.source.close()

    # -- extended attributes

    @handler
    def getxattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> bytes:
        """Answer ``getxattr``."""
        place = self._view.place(inode) if name in xattrs.NAMES else None
        if place is None:
            raise FUSEError(errno.ENODATA)
        return xattrs.read(self._tree, place, name)

    @handler
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """Answer ``listxattr``."""
        place = self._view.place(inode)
        return xattrs.NAMES if place else ()

    @waiting_handler
    async def setxattr(
        self, inode: InodeT, name: pyfuse3.XAttrNameT, value: bytes, ctx: RequestContext
    ) -> None:
        """Answer ``setxattr``."""
        xattrs.check_settable(name)
        await self._set_mark(inode, xattrs.parse_mark(value))

    @waiting_handler
    async def removexattr(self, inode: InodeT, name: pyfuse3.XAttrNameT, ctx: RequestContext) -> None:
        """Answer ``removexattr``."""
        xattrs.check_settable(name)
        place = self._view.place(inode)
        if place is None or place.reader.explicit_mark(inode) is None:
            raise FUSEError(errno.ENODATA)
        await self._set_mark(inode, None)

    async def _set_mark(self, inode: InodeT, mark: Mark | None) -> None:
        place = self._view.place(inode)
        if place is None:
            raise PathReadOnlyError("only what is in an arena can be marked")
        path = RelPath(place.reader.path(inode))
        await self._ask(self._backend.set_mark, place.arena, path, mark)

    async def _ask(self, method: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        with trio.move_on_after(_CALL_S):
            return await self._engine.call(method, *args)
        raise FUSEError(errno.ETIMEDOUT)

    # -- changes: the mount is read-only

    def _read_only(self, *args: object) -> NoReturn:
        raise PathReadOnlyError("the mount is read-only")

    _refuse: Any = handler(_read_only)
    setattr = mknod = mkdir = unlink = rmdir = symlink = rename = link = create = write = _refuse
