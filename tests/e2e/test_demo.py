"""``realize demo`` without a terminal: what ``make demo </dev/null`` does."""

import subprocess
from pathlib import Path

from app.demo.household import realize_command


def test_the_narrated_demo_sees_every_step(tmp_path: Path) -> None:
    done = subprocess.run(
        [*realize_command(), "demo", "--dir", str(tmp_path / "demo")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") == 14
    assert not (tmp_path / "demo").exists()
    assert "rz-demo" not in Path("/proc/self/mountinfo").read_text()


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = subprocess.run(
        [*realize_command(), "demo", "--no-ui", "--dir", str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "not empty" in done.stderr
    assert (tmp_path / "precious").read_text() == "mine"
