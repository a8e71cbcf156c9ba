"""Every command sets up logging for its process; the tests that follow must not notice."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Take back what a test did to the handlers of the root logger and to the levels of any."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    levels = {name: logging.getLogger(name).level for name in ("realize", *_names())}
    root_level = root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(root_level)
    for name in _names():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def _names() -> list[str]:
    known = logging.root.manager.loggerDict
    return [name for name in known if name == "realize" or name.startswith("realize.")]
