"""The outcome of a check."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """``check`` names what was looked at, ``detail`` what was found, ``fix`` what to do when not ``ok``."""

    check: str
    ok: bool
    detail: str
    fix: str = ""
