"""Every error has its row in each table (spec 2 §Errors)."""

import errno
import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import core
from core.errors import (
    ERRNOS,
    EXIT_CODES,
    WIRE_CODES,
    ConfigError,
    NoSpaceError,
    PathError,
    PathNotFoundError,
    RealizeError,
    chain,
    errno_of,
    exit_code,
    lookup,
)


def _subclasses(cls: type[RealizeError]) -> Iterator[type[RealizeError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _all_errors() -> list[type[RealizeError]]:
    for module in pkgutil.walk_packages(core.__path__, "core."):
        importlib.import_module(module.name)
    return sorted(set(_subclasses(RealizeError)), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("error", _all_errors(), ids=lambda cls: cls.__name__)
def test_every_error_has_an_exit_code_an_errno_and_a_wire_code(error: type[RealizeError]) -> None:
    assert 0 < lookup(EXIT_CODES, error) < 128
    number = error.code if issubclass(error, PathError) else lookup(ERRNOS, error)
    assert number in errno.errorcode
    assert lookup(WIRE_CODES, error) > 0


def test_wire_codes_tell_errors_apart() -> None:
    assert len(set(WIRE_CODES.values())) == len(WIRE_CODES)


def test_the_contract_of_the_exit_codes() -> None:
    assert exit_code(ConfigError(["x"])) == 78
    assert exit_code(PathNotFoundError("x")) == 1
    assert errno_of(PathNotFoundError("x")) == errno.ENOENT
    assert errno_of(NoSpaceError("x")) == errno.ENOSPC


def test_a_chain_tells_every_cause_once() -> None:
    low = OSError(errno.ENOSPC, "No space left on device")
    middle = NoSpaceError("cannot write")
    middle.__cause__ = low
    top = RealizeError("cannot write")
    top.__cause__ = middle
    assert chain(top) == ["cannot write", "[Errno 28] No space left on device"]
