"""The same work by other tools, where they are installed; over loopback, in the same run."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.demo.household import free_port, wait_until
from bench.rig import LIMIT_S, MIB, timed

NOT_INSTALLED = "not installed"
TOOLS = ("rsync", "rclone")


def copy_file(path: Path) -> dict[str, str]:
    """Copy one file with each tool; MiB/s by tool."""
    mib = path.stat().st_size / MIB
    return {tool: f"{mib / took_s:.0f} MiB/s" if took_s else NOT_INSTALLED for tool, took_s in _copies(path)}


def copy_tree(root: Path, files: int) -> dict[str, str]:
    """Copy a tree with each tool; files/s by tool."""
    return {
        tool: f"{files / took_s:.0f} files/s" if took_s else NOT_INSTALLED for tool, took_s in _copies(root)
    }


def _copies(source: Path) -> Iterator[tuple[str, float | None]]:
    for tool, copy in (("rsync unencrypted", _rsync_s), ("rclone sftp", _rclone_s)):
        if shutil.which(tool.split()[0]) is None:
            yield tool, None
        else:
            with tempfile.TemporaryDirectory(prefix="rz-other-") as directory:
                yield tool, copy(source, Path(directory))


def _rsync_s(source: Path, directory: Path) -> float:
    port = free_port()
    target = directory / "target"
    target.mkdir()
    config = directory / "rsyncd.conf"
    config.write_text(f"use chroot = no\n[target]\npath = {target}\nread only = no\nuid = 0\ngid = 0\n")
    serve = [
        "rsync",
        "--daemon",
        "--no-detach",
        f"--port={port}",
        "--address=127.0.0.1",
        f"--config={config}",
    ]
    with _serving(serve, port):
        return _run_s(["rsync", "-a", str(source), f"rsync://127.0.0.1:{port}/target/"])


def _rclone_s(source: Path, directory: Path) -> float:
    port = free_port()
    serve = ["rclone", "serve", "sftp", str(source.parent), "--no-auth", f"--addr=127.0.0.1:{port}"]
    # The server takes any password; rclone's own notation has it obscured.
    password = subprocess.run(["rclone", "obscure", "any"], check=True, capture_output=True, text=True)
    remote = f":sftp,host=127.0.0.1,port={port},user=any,pass={password.stdout.strip()}:"
    with _serving(serve, port):
        return _run_s(
            [
                "rclone",
                "copy",
                "--config=",
                "--transfers=8",
                f"{remote}{source.name}",
                str(directory / "target"),
            ]
        )


def _run_s(command: list[str]) -> float:
    return timed(lambda: subprocess.run(command, check=True, capture_output=True, timeout=LIMIT_S))


@contextmanager
def _serving(command: list[str], port: int) -> Iterator[None]:
    wanted = f":{port:04X} "
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(
                lambda: wanted in Path("/proc/net/tcp").read_text(),
                10,
                "the other tool's server",
            )
            yield
        finally:
            server.terminate()
