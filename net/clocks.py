"""Clocks of the system that trio does not have."""

from __future__ import annotations

import time


def suspended_s() -> float:
    """Return how long this host has been suspended since it started.

    CLOCK_MONOTONIC, trio's clock, stands still meanwhile and CLOCK_BOOTTIME does not (clock_gettime(2)).
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
