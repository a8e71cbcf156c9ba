"""What all tests with real daemons need: a place to mount."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _fuse() -> None:
    if Path("/dev/fuse").exists() and os.access("/dev/fuse", os.R_OK | os.W_OK):
        return
    reason = "/dev/fuse is not there or not accessible: nothing can be mounted"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
