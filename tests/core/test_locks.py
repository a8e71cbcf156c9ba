"""A directory belongs to one daemon, and a dead one holds nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StoreError, StoreLockedError
from core.locks import DirectoryLock

_HOLD = "import sys; from pathlib import Path; from core.locks import DirectoryLock\n\
lock = DirectoryLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"


def test_a_second_lock_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path / "lock")
    with pytest.raises(StoreLockedError, match=f"pid {os.getpid()}") as caught:
        DirectoryLock(tmp_path / "lock")
    assert (caught.value.pid, bool(caught.value.hint)) == (os.getpid(), True)
    lock.release()
    DirectoryLock(tmp_path / "lock").release()


def test_a_process_that_died_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(StoreLockedError) as caught:
        DirectoryLock(path)
    assert caught.value.pid == holder.pid
    holder.kill()
    holder.communicate()
    lock = DirectoryLock(path)
    assert path.read_text().strip() == str(os.getpid())
    lock.release()


def test_a_lock_file_of_garbage_locks_nothing(tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(b"\xffgarbage" * 100)
    lock = DirectoryLock(tmp_path / "lock")
    assert (tmp_path / "lock").read_text().strip() == str(os.getpid())
    lock.release()


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="lock"):
        DirectoryLock(tmp_path / "no" / "lock")
