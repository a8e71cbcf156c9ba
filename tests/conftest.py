"""What holds for all tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest

_LONG = ("sim", "crash")
"""Directories whose tests take a minute or more each."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: at the end one process would go on with it alone."""
    items.sort(key=lambda item: item.path.parent.name not in _LONG)


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
