"""Sizes, shares and durations as people write them in the config and on the command line (spec 3).

And sizes as people read them.

Pure. Every parser raises `ValueError` whose text says what the value is not; `SIZE`, `SHARE`, `RATE`
and `DURATION` say what is accepted.
"""

from __future__ import annotations

import math
import re

SIZE = 'bytes as a number, or text like "1.5G" (B K M G T, powers of 1024)'
SHARE = 'a share like "50%"'
RATE = 'bytes a second, a number above 0 or text like "512K"; left out: no limit'
DURATION = '"500ms", "3s", "5m", "1h" or a number of seconds'

_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,18})?)\s*(?:([kmgt])b?|b)?", re.IGNORECASE | re.ASCII)
_SHARE = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*%", re.ASCII)
_DURATION = re.compile(r"(\d{1,18}(?:\.\d{1,18})?)\s*(ms|s|m|h)?", re.IGNORECASE | re.ASCII)

_UNITS = ("B", "K", "M", "G", "T", "P", "E")
_FACTORS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_MAX_BYTES = (1 << 63) - 1
"""LIMIT: what SQLite and the kernel hold in a signed 64-bit integer."""


def human_bytes(n: int) -> str:
    """Return a size in powers of 1024 with at most one decimal: ``0 B``, ``1.5 K``, ``312 M``."""
    if n < 0:
        return "-" + human_bytes(-n)
    value, unit = float(n), 0
    # LIMIT: from 999.5 on, three digits would be rounded to four.
    while value >= 999.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    decimals = 1 if unit and value < 99.95 else 0
    return f"{value:.{decimals}f} {_UNITS[unit]}"


def parse_size(value: object) -> int:
    """Return a size in bytes.

    Raises:
        ValueError: it is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value.strip())):
        unit = match[2]
        size = int(match[1]) if match[1].isdigit() and unit is None else _scaled(match[1], unit)
    else:
        raise ValueError("not a size")
    if not 0 <= size <= _MAX_BYTES:
        raise ValueError("a size below 0" if size < 0 else "too large")
    return size


def _scaled(number: str, unit: str | None) -> int:
    factor = _FACTORS[unit.lower()] if unit else 1
    return int(number) * factor if number.isdigit() else int(float(number) * factor)


def parse_share(value: str) -> float:
    """Return a share written in percent as a fraction, 0 … 1.

    Raises:
        ValueError: it is not a share.
    """
    match = _SHARE.fullmatch(value.strip())
    if match is None:
        raise ValueError("not a share")
    fraction = float(match[1]) / 100
    if fraction > 1:
        raise ValueError("more than 100%")
    return fraction


def parse_rate(value: object) -> int:
    """Return a rate in bytes/s, above 0.

    Raises:
        ValueError: it is not a rate.
    """
    try:
        rate = parse_size(value)
    except ValueError as error:
        raise ValueError(str(error).replace("size", "rate")) from None
    if rate == 0:
        raise ValueError("a rate of 0")
    return rate


def parse_duration(value: object) -> float:
    """Return a duration in seconds.

    Raises:
        ValueError: it is not a duration.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        seconds = float(match[1]) * _SECONDS[(match[2] or "s").lower()]
    else:
        raise ValueError("not a duration")
    if not math.isfinite(seconds):
        raise ValueError("not a finite duration")
    if seconds < 0:
        raise ValueError("a duration below 0")
    return seconds
