"""The tests that docs/storage-tests.md names are there."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_test_that_is_named_exists() -> None:
    text = (TESTS.parent / "docs/storage-tests.md").read_text(encoding="utf-8")
    named = NAMED.findall(text)
    assert len(named) > 150
    assert len(named) == text.count("::test_"), "one is written in another way"
    missing = [
        f"{file}::{name}"
        for file, name in named
        if f"def {name}(" not in (TESTS / file).read_text(encoding="utf-8")
    ]
    assert not missing
