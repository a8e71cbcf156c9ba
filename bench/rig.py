"""What every benchmark needs: two fresh daemons, trees of files, and readings of processes."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.demo.household import ArenaPlan, Household, Peer, PeerPlan, wait_until

MIB = 1024 * 1024
ARENA = "data"
MARK = "user.realize.mark"
FILES_PER_DIRECTORY = 100
LIMIT_S = 600.0
"""LIMIT: nothing measured here should take longer; a benchmark that hangs ends."""


@dataclass(frozen=True)
class Size:
    """How much work there is."""

    name: str
    tree_files: int
    small_files: int
    large_bytes: int
    random_reads: int
    edits: int
    idle_s: float
    many_files: int
    renamed_files: int
    evicted_files: int

    @property
    def is_full(self) -> bool:
        """Whether the targets apply."""
        return self.name == "full"


SIZES = {
    "full": Size("full", 100_000, 10_000, 1024 * MIB, 200, 40, 20.0, 1_000_000, 100_000, 4_000),
    "medium": Size("medium", 20_000, 5_000, 256 * MIB, 100, 20, 5.0, 100_000, 20_000, 1_000),
    "small": Size("small", 500, 200, 16 * MIB, 20, 4, 0.5, 2_000, 500, 60),
}


MEMORY = Path("/dev/shm")
"""A file system in memory: trees of a million files are made there in a minute, and removed as quickly."""


def memory_has_room(files: int, *, bytes_each: int = 4096 + 1024) -> bool:
    """Say whether so many files, with a block and an inode each, leave half of what memory is free."""
    try:
        facts = os.statvfs(MEMORY)
    except OSError:
        return False
    return facts.f_bavail * facts.f_frsize > 2 * files * bytes_each


@contextmanager
def two_peers(
    *,
    directory: Path | None = None,
    source_options: Mapping[str, object] | None = None,
    reader_options: Mapping[str, object] | None = None,
) -> Iterator[tuple[Household, Peer, Peer]]:
    """Give a household of two that know each other and are not started: the source, the reader.

    ``directory``: where to make the household's own directory; else where temporary ones are.
    The options are further keys of the arena's table of each. The source owns its files by default:
    under watch it would give up its real ones as soon as the reader keeps them.
    """
    where = Path(tempfile.mkdtemp(prefix="rz-", dir=directory))
    with Household(where) as household:
        source = household.add(
            PeerPlan("source", [ArenaPlan(ARENA, options=source_options or {"mark": "own"})])
        )
        reader = household.add(PeerPlan("reader", [ArenaPlan(ARENA, options=reader_options or {})]))
        household.introduce_all()
        yield household, source, reader


def make_tree(root: Path, files: int, bytes_each: int, per_directory: int = FILES_PER_DIRECTORY) -> float:
    """Write ``files`` files of random content, some per directory; return files per second."""
    started_s = time.perf_counter()
    for number in range(files):
        directory = root / f"{number // per_directory:04}"
        if number % per_directory == 0:
            directory.mkdir(parents=True)
        with open(f"{directory}/{number % per_directory:02}.bin", "wb") as file:
            file.write(os.urandom(bytes_each))
    return files / (time.perf_counter() - started_s)


def make_large(path: Path, size: int) -> None:
    """Write one file of random content."""
    with open(path, "wb") as file:
        for _ in range(size // (4 * MIB)):
            file.write(os.urandom(4 * MIB))


def count_files(root: Path) -> int:
    """Count what is in the directories that `make_tree` made."""
    return sum(sum(1 for _ in os.scandir(entry)) for entry in os.scandir(root) if entry.is_dir())


def attribute(path: Path, name: str) -> str:
    """Return an extended attribute of ours, "" while the path is not there."""
    try:
        return os.getxattr(path, f"user.realize.{name}").decode()
    except OSError:
        return ""


def wait_for(condition: Callable[[], bool], what: str, *, every_s: float = 0.002) -> float:
    """Wait for a condition, within the limit of a benchmark; return the seconds that took."""
    return wait_until(condition, LIMIT_S, what, every_s=every_s)


def wait_shown(reader: Peer, name: str) -> Path:
    """Wait until a file is on the reader's mount with its hash and return its path there."""
    shown = reader.view(ARENA) / name
    wait_for(lambda: attribute(shown, "version") != "", f"{name} with its hash")
    return shown


def read_all(path: Path) -> int:
    """Read a file with 1 MiB reads; return how many bytes there were."""
    buffer = bytearray(MIB)
    total = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds ``action`` takes."""
    started_s = time.perf_counter()
    action()
    return time.perf_counter() - started_s


def drop_page_cache(path: Path) -> bool:
    """Drop cached pages, of the whole machine where permitted, else of ``path``; says which it was."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    try:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("1\n")
    except OSError:
        return False
    return True


def resident_mib(peer: Peer) -> float:
    """Return the resident memory of a daemon in MiB."""
    return _status_kib(peer, "VmRSS:") / 1024


def peak_mib(peer: Peer) -> float:
    """Return the most resident memory that a daemon had since it was started, in MiB."""
    return _status_kib(peer, "VmHWM:") / 1024


def _status_kib(peer: Peer, key: str) -> int:
    assert peer.process is not None
    for line in Path(f"/proc/{peer.process.pid}/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def load() -> str:
    """Say how busy the machine is: the figures of a shared one mean little without it."""
    return f"{os.getloadavg()[0]:.1f}"


def received_mib(peer: Peer) -> float:
    """Return what a peer has received over its connections so far, in MiB."""
    return float(sum(other["rx_bytes"] for other in peer.status()["peers"])) / MIB


def cpu_seconds(peer: Peer) -> float:
    """Return the CPU time that a daemon has used so far."""
    assert peer.process is not None
    fields = Path(f"/proc/{peer.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
