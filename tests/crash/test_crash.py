"""Real daemons killed at random moments: nothing is lost, the quota holds, all agree in the end."""

import os

import pytest

from tests.crash.run import QUOTA_BYTES, crash

ROUNDS = 20
TIMEOUT_S = 600


@pytest.mark.timeout(TIMEOUT_S)
def test_twenty_rounds_of_kills_lose_nothing() -> None:
    seed = int(os.environ.get("REALIZE_CRASH_SEED", "6"))  # `make soak` takes others
    found, run = crash(seed, ROUNDS)
    assert not found, "\n".join(found)
    assert run.kills >= ROUNDS
    assert run.user.reads >= ROUNDS
    assert 0 < run.most_cached_bytes <= QUOTA_BYTES
