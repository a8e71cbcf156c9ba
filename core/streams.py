"""One request for content to one holder: what it may answer, and how its failures are named.

Engine thread. Whatever a holder does wrong ends as a `NetError` or a `ChangedError`: the caller goes on
with another holder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from core.blobrows import fits
from core.byteranges import ByteRanges
from core.errors import (
    WIRE_CODES,
    ChangedError,
    ContentError,
    CorruptError,
    NetError,
    NoHolderError,
    RealizeError,
    RemoteError,
    RemoteProtocolError,
)
from core.ports import PeerLink
from core.types import BlockList, Hash, Priority

STALL_S = 10.0
"""LIMIT: seconds without data after which a holder loses its requests to the others."""


class ContentStream:
    """The bytes ``[start, end)`` of a content as a holder sends them, in order."""

    def __init__(
        self,
        link: PeerLink,
        pieces: AsyncIterator[tuple[int, memoryview]],
        start: int,
        end: int,
        stall_s: float,
    ) -> None:
        """Read ``pieces`` of ``link``; `open_stream` does this."""
        self._link, self._pieces, self._stall_s = link, pieces, stall_s
        self._at, self._end = start, end

    async def next(self) -> memoryview:
        """Return the next bytes, valid until the next call.

        Raises:
            NetError: the holder stalls, fails, or sends something else.
            ChangedError: it does not hold the content any more.
        """
        try:
            with trio.fail_after(self._stall_s):
                offset, data = await anext(self._pieces)
        except StopAsyncIteration:
            raise RemoteProtocolError(
                f"{self._link.name} ended a content early", peer=self._link.name
            ) from None
        except trio.TooSlowError:
            raise stalled(self._link, self._stall_s) from None
        if offset != self._at or not 0 < len(data) <= self._end - self._at:
            raise RemoteProtocolError(
                f"{self._link.name} sent other bytes than were asked for", peer=self._link.name
            )
        self._at += len(data)
        return data

    def _breach(self, what: str) -> RemoteProtocolError:
        return RemoteProtocolError(f"{self._link.name} {what}", peer=self._link.name)


@asynccontextmanager
async def open_stream(
    link: PeerLink,
    arena: str,
    content: Hash,
    start: int,
    end: int,
    priority: Priority,
    stall_s: float,
) -> AsyncIterator[ContentStream]:
    """Ask a holder for ``[start, end)`` of a content; leaving early cancels the request."""
    try:
        async with link.read(arena, content, ByteRanges([(start, end)]), priority) as pieces:
            yield ContentStream(link, pieces, start, end, stall_s)
    except RemoteError as error:
        raise holder_error(error) from error


async def ask_blocks(
    link: PeerLink, arena: str, content: Hash, size: int, first: int, count: int, stall_s: float
) -> BlockList:
    """Ask a holder for a part of a block list, and check its form.

    Raises:
        NetError: the holder stalls, fails, or sends something else.
        ChangedError: it does not hold the content any more.
    """
    try:
        with trio.fail_after(stall_s):
            blocks = await link.blocks(arena, content, first, count)
    except trio.TooSlowError:
        raise stalled(link, stall_s) from None
    except RemoteError as error:
        raise holder_error(error) from error
    if not fits(blocks, size, count):
        raise RemoteProtocolError(f"{link.name} sent a malformed block list", peer=link.name)
    return blocks


def stalled(link: PeerLink, stall_s: float) -> NetError:
    """Return the error for a holder that sends nothing."""
    return NetError(f"{link.name} sent nothing for {stall_s:g} s", peer=link.name)


def holder_error(error: RemoteError) -> RealizeError:
    """Return what an answer of a holder means: `ChangedError` when it no longer has the content."""
    if error.code == WIRE_CODES[ChangedError]:
        return ChangedError(f"{error.peer or 'a peer'} does not hold it any more: {error}")
    return error


def nobody(content: Hash, failures: Sequence[RealizeError], *, wrong: bool) -> ContentError:
    """Return the error for a content that no holder could give.

    `CorruptError` when one sent wrong data, `ChangedError` when all who answered have it no more, else
    `NoHolderError`.
    """
    name = content.hex()[:12]
    reasons = "; ".join(dict.fromkeys(str(error) for error in failures))
    if wrong:
        return CorruptError(
            f"no holder sent content {name} as it should be", hint="run `realize verify` there"
        )
    if failures and all(isinstance(error, ChangedError) for error in failures):
        return ChangedError(f"content {name}: {reasons}")
    return NoHolderError(
        f"no connected peer gives content {name}" + (f": {reasons}" if reasons else ""),
        hint="it goes on when a holder connects; see `realize peer list`",
    )
