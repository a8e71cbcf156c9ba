"""Serving subscriptions: `core.ports.Household` behind the protocol. Engine thread."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import cast

from core.announce import Batch
from core.ports import Household
from core.types import PeerKey
from net import codec, columns
from net.answers import Answers
from net.messages import Announcements, Subscribe


async def serve_subscribe(household: Household, peer: PeerKey, request: Subscribe, answers: Answers) -> None:
    """Send announcements for as long as the subscriber stays."""
    batches = household.announcements(peer, request.arena, request.uuid, request.seq)
    seq = request.seq
    async with contextlib.aclosing(cast("AsyncGenerator[Batch, None]", batches)):
        async for batch in batches:
            for part in columns.split(batch, seq):
                await answers.send(Announcements(), codec.encode_batch(part), compressed=True)
            seq = batch.seq
