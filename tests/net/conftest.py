"""Identities are made once: keys are cheap, but not free."""

from __future__ import annotations

import pytest

from net import identity
from net.identity import Identity


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    """Identities ``a`` … ``d``, in the order of their fingerprints."""
    directory = tmp_path_factory.mktemp("identities")
    made = sorted((identity.create(directory / f"{n}.pem") for n in range(4)), key=lambda i: i.fingerprint)
    return dict(zip("abcd", made, strict=True))
