"""The dashboard as a user meets it: the real program in a real terminal, with a second peer."""

import os
from pathlib import Path

from app.demo.household import realize_command
from tests.e2e.household import WAIT_S, attribute, hashed, household_of, is_mounted, put, reads, wait_until
from tests.e2e.terminal import Terminal


def test_the_dashboard_hosts_the_daemon() -> None:
    with household_of("anna", "bert", start=False) as household:
        anna, bert = household.peers
        put(anna.datadir() / "recipes/bread.txt", b"flour, water, salt")
        anna.start()
        with Terminal(bert.daemon_command(), dict(os.environ) | bert.environment()) as screen:
            screen.wait_for("docs")
            screen.wait_for("anna +● connected")
            screen.press("1", "\r")
            screen.wait_for("recipes")
            shown = bert.view() / "recipes/bread.txt"
            wait_until(lambda: reads(shown, b"flour, water, salt"), WAIT_S, "the file on the mount")
            screen.press("?")
            screen.wait_for("Keys and words")
            screen.press("\x1b")
            screen.wait_gone("Keys and words")
            screen.press("q")
            assert screen.wait_end() == 0
        assert not is_mounted(bert.mount)


def test_the_dashboard_attaches_to_a_daemon_and_leaves_it_running() -> None:
    with household_of("anna", "bert") as household:
        anna, bert = household.peers
        put(anna.datadir() / "letter.txt", b"dear bert")
        shown = bert.view() / "letter.txt"
        wait_until(lambda: hashed(shown), WAIT_S, "its hash")
        with Terminal(bert.daemon_command(), dict(os.environ) | bert.environment(), 80, 24) as screen:
            screen.wait_for("docs")
            screen.press("1", "\r")
            screen.wait_for("letter.txt")
            screen.press("k")
            wait_until(lambda: attribute(bert.view(), "mark") == "keep", WAIT_S, "the mark set by a key")
            screen.wait_for("kept")
            screen.press("q")
            assert screen.wait_end() == 0
        assert bert.status()["name"] == "bert"
        wait_until(lambda: attribute(shown, "state") == "kept", WAIT_S, "kept")


def test_the_demo_shows_the_dashboard_of_one_peer(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    with Terminal([*realize_command(), "demo", "--dir", str(directory)], dict(os.environ)) as screen:
        screen.wait_for("server +● connected")
        screen.wait_for("documents")
        screen.press("q")
        assert screen.wait_end() == 0
    assert not directory.exists()
    assert str(directory) not in Path("/proc/self/mountinfo").read_text()
