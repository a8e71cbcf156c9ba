"""What befalls a host besides deaths and partitions; only in households that are to have it (``--wide``).

Its database is lost, a peer is taken out of its config for a while, files and directories become unreadable.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Sequence

from core.blobrows import Area
from tests.sim.disks import Disks
from tests.sim.hosts import Host, files_below
from tests.sim.ledger import Ledger

_PROTECTED = f"SELECT hash FROM blob WHERE area = {int(Area.PROTECTED)}"
_FILE_READ, _DIR_READ = 0o600, 0o700


class Troubles:
    """All of them, for one household."""

    def __init__(self, rng: random.Random, hosts: Sequence[Host], ledger: Ledger, disks: Disks) -> None:
        self._rng, self._hosts, self._ledger, self._disks = rng, hosts, ledger, disks

    def before_start(self, host: Host) -> None:
        """Do something to a host that does not run."""
        if self._rng.random() < 0.4:
            self._wipe(host)
        else:
            host.without = set() if host.without else {self._rng.choice(sorted(host.others))}
            self._ledger.note(host.name, f"is configured without {sorted(host.without)}")

    def _wipe(self, host: Host) -> None:
        """Lose the arena's database, and what only that knew: the trash, marks, what others relied on."""
        ledger = self._ledger
        ledger.note(host.name, "its database is lost")
        if not (host.workdir / "arena.db").exists():
            return
        ledger.unsure.update(row[0] for row in host.query(_PROTECTED, ()))
        for name in ("blobs", "work"):
            for path, _ in files_below(host.workdir / name):
                at = os.path.join(os.fsencode(host.workdir / name), path)
                content = self._disks.content(at)
                if content is not None:
                    ledger.touched(content)
                    if not self._disks.holds(content, besides=at):
                        ledger.gave_up(content)
        if host.datadir is not None:
            for root in (host.datadir, host.away, host.emptied):
                ledger.touched_file(root)  # what was renamed or deleted elsewhere, and is here still, is new
        for suffix in ("", "-wal", "-shm"):
            (host.workdir / f"arena.db{suffix}").unlink(missing_ok=True)

    def make_unreadable(self, host: Host) -> None:
        """Take the right to read a file or a directory from the daemon."""
        assert host.datadir is not None
        found = sorted(files_below(host.datadir))
        if not found:
            return
        path, at = self._rng.choice(found)
        full = os.path.join(os.fsencode(host.datadir), path)
        if not os.path.islink(full):
            self._ledger.note(host.name, f"{path!r} becomes unreadable")
            os.chmod(full, 0o300 if os.path.isdir(full) else at.st_mode & 0o333)

    def mend(self) -> None:
        """Make everything readable again."""
        for host in self._hosts:
            if host.datadir is None or not host.usable:
                continue
            for path, found in files_below(host.datadir):
                full = os.path.join(os.fsencode(host.datadir), path)
                if found.st_mode & 0o400 or os.path.islink(full):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    self._ledger.note(host.name, f"{path!r} is made readable")
                    os.chmod(full, found.st_mode & 0o777 | (_DIR_READ if os.path.isdir(full) else _FILE_READ))

    def separated(self) -> list[Host]:
        """Return the hosts that have to start anew to know all peers again, which they do from then on."""
        found = [host for host in self._hosts if host.without]
        for host in found:
            host.without = set()
        return found
