"""What importing a layer, or asking for help, brings in: start-up time, and layers that stay apart."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

import pytest

import core
import net

_REPORT = "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"

TERMINAL = {"textual", "rich", "typer"}
FOREIGN = {
    "core": TERMINAL | {"pyfuse3", "capnp"},
    "net": TERMINAL | {"pyfuse3"},
    "fuse": TERMINAL | {"capnp"},
}


def modules_after(code: str) -> set[str]:
    """Return the names of all modules loaded after running ``code`` in a new interpreter."""
    done = subprocess.run([sys.executable, "-c", code + _REPORT], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def all_modules(package: str, path: list[str]) -> list[str]:
    found = [name for _, name, _ in pkgutil.walk_packages(path, f"{package}.")]
    assert len(found) > 10
    return found


def test_core_knows_no_network_no_mount_and_no_screen() -> None:
    loaded = modules_after("import " + ", ".join(all_modules("core", list(core.__path__))))
    assert not loaded & (FOREIGN["core"] | {"net", "fuse", "app"})


def test_net_knows_no_mount_and_no_screen() -> None:
    loaded = modules_after("import " + ", ".join(all_modules("net", list(net.__path__))))
    assert not loaded & (FOREIGN["net"] | {"fuse", "app"})


def test_the_mount_knows_no_network_and_no_screen() -> None:
    pytest.importorskip("pyfuse3", exc_type=ImportError)
    loaded = modules_after("import fuse.ops, fuse.view, fuse.mount")
    assert not loaded & (FOREIGN["fuse"] | {"net", "app"})


@pytest.mark.parametrize("arguments", [["--help"], ["mark", "--help"], ["--version"]])
def test_help_loads_neither_screen_nor_mount_nor_network(arguments: list[str]) -> None:
    loaded = modules_after(
        f"import sys\nsys.argv = ['realize', *{arguments!r}]\n"
        "from app.cli import main\n"
        "import contextlib, io\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n    main()\n"
    )
    assert "app.cli" in loaded
    assert not loaded & {"textual", "pyfuse3", "capnp", "apsw"}
