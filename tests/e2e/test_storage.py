"""Content on real disks behind real mounts: bounded while it streams, kept while it is open, resumed."""

from __future__ import annotations

import hashlib
import os
import random
from functools import partial
from pathlib import Path

from tests.e2e.household import (
    WAIT_S,
    ArenaPlan,
    Peer,
    PeerPlan,
    attribute,
    hashed,
    household_of,
    put,
    wait_until,
)

MIB = 1 << 20
KILLED = [r"detaching the mount that a crashed daemon left", r"SQLITE_NOTICE_RECOVER_WAL"]

_OWNER = PeerPlan("anna", [ArenaPlan("docs", options={"mark": "own"})])


def _resident_bytes(peer: Peer) -> int:
    assert peer.process is not None
    for line in Path(f"/proc/{peer.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):  # the most there ever was
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def _blob_bytes(peer: Peer) -> int:
    blobs = peer.home / "docs" / "blobs"
    return sum(path.stat().st_blocks * 512 for path in blobs.rglob("*") if path.is_file())


def test_a_file_larger_than_the_cache_is_read_within_bounded_memory_and_disk() -> None:
    reader = PeerPlan("bert", [ArenaPlan("docs", options={"disk_usage": {"max": "8M"}})])
    with household_of(_OWNER, reader) as household:
        anna, bert = household.peers
        content = random.Random(1).randbytes(120 * MIB)
        put(anna.datadir() / "film.bin", content)
        shown = bert.view() / "film.bin"
        wait_until(partial(hashed, shown), WAIT_S, "its hash")
        before = _resident_bytes(bert)
        most_disk, digest = 0, hashlib.sha256()
        with open(shown, "rb", buffering=0) as file:
            while chunk := file.read(4 * MIB):
                digest.update(chunk)
                most_disk = max(most_disk, _blob_bytes(bert))
            assert digest.digest() == hashlib.sha256(content).digest()
            places = random.Random(2)
            for _ in range(40):
                at = places.randrange(len(content) - 10_000)
                assert os.pread(file.fileno(), 10_000, at) == content[at : at + 10_000]
                most_disk = max(most_disk, _blob_bytes(bert))
        assert most_disk <= 8 * MIB
        # A window of 64 MiB, and what the transfer itself has in flight.
        assert _resident_bytes(bert) - before < 144 * MIB
        assert attribute(shown, "state") in ("online", "partial")


def test_what_is_open_is_read_to_its_end_though_it_was_evicted() -> None:
    with household_of(_OWNER, "bert") as household:
        anna, bert = household.peers
        content = random.Random(3).randbytes(24 * MIB)
        put(anna.datadir() / "book.bin", content)
        shown = bert.view() / "book.bin"
        wait_until(partial(hashed, shown), WAIT_S, "its hash")
        bert.command("get", "docs/book.bin")
        wait_until(lambda: attribute(shown, "state") == "cached", WAIT_S, "cached")
        with open(shown, "rb", buffering=0) as file:
            assert file.read(4096) == content[:4096]
            bert.command("evict", "docs/book.bin")
            wait_until(lambda: attribute(shown, "state") == "online", WAIT_S, "evicted")
            anna.stop()
            assert os.pread(file.fileno(), MIB, 20 * MIB) == content[20 * MIB : 21 * MIB]
            assert b"".join(iter(lambda: file.read(MIB), b"")) == content[4096:]
        wait_until(lambda: _blob_bytes(bert) == 0, WAIT_S, "the disk is given back when it is closed")


def test_after_a_kill_a_download_fetches_little_again() -> None:
    with household_of(_OWNER, "bert", allowed=list(KILLED)) as household:
        anna, bert = household.peers
        size = 200 * MIB
        put(anna.datadir() / "large.bin", os.urandom(size))
        shown = bert.view() / "large.bin"
        wait_until(partial(hashed, shown), WAIT_S, "its hash")
        bert.command("mark", "set", "keep", "docs/large.bin")

        def come() -> int:
            return int(attribute(shown, "progress").split("/")[0] or 0)

        wait_until(lambda: come() > size // 3, 60, "a third of it", every_s=0)
        here = come()
        bert.kill()
        bert.start()
        wait_until(lambda: attribute(shown, "state") == "kept", 60, "all of it")
        fetched: int = bert.status()["peers"][0]["rx_bytes"]
        assert fetched > size // 10, "it was killed too late to say anything"
        # What was written counts again, recorded or not, once its blocks were checked; the rest is overhead.
        assert fetched - (size - here) <= 4 * MIB
