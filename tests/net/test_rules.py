"""The rules around connections that need no socket."""

from __future__ import annotations

import random

import pytest

from core import errors
from core.api import Api
from core.config import PeerConfig
from core.errors import WIRE_CODES, ConfigError, RealizeError
from net import control_table, listener
from net.control import ControlClient
from net.dialer import FIRST_S, LAST_S, Backoff
from net.identity import Identity
from net.meter import WINDOW_S, Meter
from tests.net.test_household import host, peer


def test_strangers_are_limited_in_all() -> None:
    doorkeeper = listener.Doorkeeper()
    contexts = [doorkeeper.waiting(f"10.0.0.{n}") for n in range(listener.UNAUTHENTICATED)]
    done = [context.__enter__() for context in contexts]
    assert "too many" in doorkeeper.refusal("10.1.1.1")
    done[0]()
    done[0]()
    assert doorkeeper.refusal("10.1.1.1") == ""
    for context in contexts:
        context.__exit__(None, None, None)
    assert doorkeeper.refusal("10.0.0.1") == ""


def test_certificates_that_cannot_be_peers(identities: dict[str, Identity]) -> None:
    for peers, match in (
        ([PeerConfig("bob", "garbage")], "peer bob: not a certificate"),
        ([peer("self", identities["a"])], "peer self: its certificate is that of this host itself"),
        ([peer("bob", identities["b"]), peer("bib", identities["b"])], "peer bib: .* of peer bob"),
        ([PeerConfig("bob", identities["b"].cert_pem, "nowhere")], "not an address"),
    ):
        with pytest.raises(ConfigError, match=match):
            host(identities["a"], *peers)


def test_pauses_grow_with_full_jitter_and_start_again() -> None:
    backoff = Backoff(random.Random(1))
    for round_ in range(2):
        bounds = [min(LAST_S, FIRST_S * 2**n) for n in range(10)]
        pauses = [backoff.next_s() for _ in bounds]
        assert all(0 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True)), round_
        assert bounds[-1] == LAST_S
        backoff.reset()
    longest = Backoff(_Highest())
    assert [longest.next_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]


class _Highest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def test_rates_are_over_the_last_seconds() -> None:
    meter = Meter()
    for tenth in range(100):
        meter.add(100 + tenth / 10, 1000)
    assert meter.total == 100_000
    assert meter.rate(110.0) == pytest.approx(10_000, rel=0.15)
    assert meter.rate(110.0 + WINDOW_S + 1) == 0.0
    meter.add(200.0, 500)
    assert meter.rate(200.0) == 1000.0


def test_every_method_of_the_api_is_served() -> None:
    declared = {name for name in vars(Api) if not name.startswith("_")}
    assert set(control_table.METHODS) == declared
    assert all(callable(getattr(ControlClient, name)) for name in declared)
    streams = {method.name for method in control_table.METHODS.values() if method.stream}
    assert streams == {"get", "events", "evict", "log", "verify"}


def test_every_error_can_be_sent() -> None:
    classes = [
        cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, RealizeError)
    ]
    for cls in set(classes) - {RealizeError}:
        assert errors.lookup(WIRE_CODES, cls)
