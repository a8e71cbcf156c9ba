"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator
from itertools import islice

import pytest

_LONG = ("sim", "crash")
"""Directories whose tests take a minute or more each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have each process begin with some of what takes longest: one alone would go on with it at the end.

    pytest-xdist gives each process as many items, in order, and moves some of them later on.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.path.parent.name in _LONG]
    quick = iter([item for item in items if item.path.parent.name not in _LONG])
    share = -(-len(items) // processes)
    ordered: list[pytest.Item] = []
    for process in range(processes):
        first = slow[process::processes]
        ordered += [*first, *islice(quick, max(0, share - len(first)))]
    items[:] = [*ordered, *quick]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make what a test printed and logged text, for pytest-xdist: names on disk are bytes."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    if report.longrepr is not None and not report.passed and not isinstance(report.longrepr, tuple):
        text = str(report.longrepr)
        plain = text.encode("utf-8", "backslashreplace").decode()
        if plain != text:
            report.longrepr = plain
    return report
