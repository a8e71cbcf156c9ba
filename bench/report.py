"""Rows of the table and how they are printed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

UP, DOWN = "≥", "≤"


@dataclass(frozen=True)
class Row:
    """One measured figure. ``target`` is that of the specification for the full size, None if it has none.

    ``beside`` holds what other tools or a plain loop did in the same run, as text by tool.
    """

    work: str
    value: float
    unit: str
    target: float | None = None
    better: str = DOWN
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == UP else self.value <= self.target


def figure(value: float) -> str:
    """Return a number with about three significant digits."""
    if value >= 1000:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def print_row(row: Row, *, judged: bool) -> None:
    """Print one line of the table as soon as it is measured, with a verdict where targets apply."""
    verdict = {True: "✓", False: "✗", None: " "}[row.met if judged else None]
    target = f"{row.better} {figure(row.target)}" if row.target is not None else ""
    beside = ", ".join(f"{tool}: {text}" for tool, text in row.beside.items())
    print(
        f"{verdict} {row.work:<58} {figure(row.value):>8} {row.unit:<8} {target:<9} {beside}".rstrip(),
        flush=True,
    )


def print_json(row: Row) -> None:
    """Print one JSON line."""
    print(json.dumps(asdict(row) | {"met": row.met}, ensure_ascii=False), flush=True)
