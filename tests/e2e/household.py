"""Real daemons for the tests: households of two or three, and what their logs may say."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.demo.household import LOOPBACK, ArenaPlan, Household, Peer, PeerPlan, is_mounted, wait_until

__all__ = [
    "LOOPBACK",
    "ArenaPlan",
    "Household",
    "Peer",
    "PeerPlan",
    "alarms",
    "attribute",
    "entries",
    "fails_with",
    "hashed",
    "household_of",
    "is_mounted",
    "put",
    "reads",
    "wait_until",
]

WAIT_S = 15.0
"""Longest wait for something that should take well under a second: the machine may be busy."""

_USUAL = (
    r"realize\.auth: rejected peer=\w+ addr=\S+ reason=cannot reach",
    r"realize\.auth: rejected peer=\w+ addr=\S+ reason=.*(already connected|Connection reset by peer)",
    r"realize\.fuse\.guard: read: the file is being changed by its peer",
)
"""What is no surprise: peers dialled before they have started, reads in mid-change, and both sides dialling:
the connection that does not stay is refused, or reset where the other side closes it first."""

_ALARM = re.compile(
    r"^<[0-4]>|^Traceback \(most recent call last\)|^\s*\w*(Error|Exception)\b.*:|panicked", re.M
)


def alarms(log: str, allowed: Sequence[str] = ()) -> list[str]:
    """Return the lines of a log that are warnings, errors or tracebacks and match no ``allowed`` pattern."""
    return [
        line
        for line in log.splitlines()
        if _ALARM.search(line) and not any(re.search(pattern, line) for pattern in (*_USUAL, *allowed))
    ]


@contextmanager
def household_of(
    *plans: PeerPlan | str, start: bool = True, allowed: list[str] | None = None
) -> Iterator[Household]:
    """Give peers that all know each other, connected; a name stands for a peer with the arena ``docs``.

    At the end the logs may hold no warning that does not match a pattern of ``allowed``, which the test
    may add to while it runs.
    """
    with Household() as household:
        for plan in plans:
            household.add(PeerPlan(plan, [ArenaPlan("docs")]) if isinstance(plan, str) else plan)
        household.introduce_all()
        if start:
            household.start()
            household.wait_connected()
        yield household
        for peer in household.peers:
            peer.stop()
            assert not is_mounted(peer.mount), f"{peer.name} left its mount behind"
            found = alarms(peer.log(), allowed or ())
            assert not found, f"{peer.name} logged what no one expected:\n" + "\n".join(found[:20])


def put(path: Path, content: bytes, *, mtime_ns: int | None = None, mode: int | None = None) -> Path:
    """Write a file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if mode is not None:
        path.chmod(mode)
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))
    return path


@contextmanager
def fails_with(code: int) -> Iterator[None]:
    """Expect that the block ends with an `OSError` of this errno."""
    found = 0
    try:
        yield
    except OSError as error:
        found = error.errno or -1
    assert found == code, f"{errno.errorcode[code]} expected, not {errno.errorcode.get(found, 'success')}"


def hashed(path: Path | bytes) -> bool:
    """Say whether a file is shown with its hash by now."""
    return attribute(path, "version") != ""


def reads(path: Path, content: bytes) -> bool:
    """Say whether a file can be read and has this content by now."""
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def attribute(path: Path | bytes, name: str) -> str:
    """Return an extended attribute of ours, "" while the path is not there."""
    try:
        return os.getxattr(path, f"user.realize.{name}").decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""


def entries(peer: Peer, *arguments: str) -> dict[str, dict[str, Any]]:
    """Return what ``ls --json`` prints, by path."""
    lines = peer.command("ls", "--json", *arguments).splitlines()
    return {entry["path"]: entry for entry in map(json.loads, lines)}
