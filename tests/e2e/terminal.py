"""A real terminal for the dashboard: a pseudo-terminal (pexpect) whose screen is kept by pyte."""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Self

import pexpect
import pyte


class Terminal:
    """A program on a terminal of its own; a context that ends the program."""

    def __init__(
        self, command: list[str], environment: dict[str, str], columns: int = 120, rows: int = 40
    ) -> None:
        """Start ``command`` on a terminal of ``columns`` by ``rows``."""
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self._child = pexpect.spawn(
            command[0],
            command[1:],
            dimensions=(rows, columns),
            env={name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
            | {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor"},
        )
        self._child.delaybeforesend = None  # pexpect's own 50 ms are nobody's latency

    @property
    def text(self) -> str:
        """What is on the screen now, line by line."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def _read(self) -> bool:
        try:
            self._stream.feed(self._child.read_nonblocking(65536, timeout=0.1))
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            return False
        return True

    def wait_for(self, pattern: str, timeout_s: float = 20.0) -> float:
        """Wait until the screen matches a pattern; return the seconds that took."""
        started_s = time.monotonic()
        while not re.search(pattern, self.text):
            alive = self._read()
            took_s = time.monotonic() - started_s
            assert alive or re.search(pattern, self.text), f"ended before {pattern!r} was seen:\n{self.text}"
            assert took_s < timeout_s, f"{pattern!r} not seen in {timeout_s:g} s:\n{self.text}"
        return time.monotonic() - started_s

    def wait_gone(self, text: str, timeout_s: float = 20.0) -> None:
        """Wait until the screen does not have a text any more."""
        limit_s = time.monotonic() + timeout_s
        while text in self.text:
            alive = self._read()
            assert alive, f"ended with {text!r} on the screen:\n{self.text}"
            assert time.monotonic() < limit_s, f"{text!r} still seen:\n{self.text}"

    def _cells(self) -> list[object]:
        """Return every cell with its colours: a cursor that moves changes no text."""
        columns = range(self._screen.columns)
        return [self._screen.buffer[row][column] for row in range(self._screen.lines) for column in columns]

    def time_key(self, key: str, timeout_s: float = 5.0) -> float:
        """Send a key and return the seconds until the screen has changed."""
        before = self._cells()
        started_s = time.monotonic()
        self.press(key)
        while self._cells() == before:
            assert self._read(), f"ended by {key!r}:\n{self.text}"
            assert time.monotonic() - started_s < timeout_s, f"{key!r} did nothing:\n{self.text}"
        return time.monotonic() - started_s

    def press(self, *keys: str) -> None:
        """Send keys: characters, or escape sequences."""
        for key in keys:
            self._child.send(key)

    def wait_end(self, timeout_s: float = 20.0) -> int:
        """Wait until the program has ended; return its exit code."""
        limit_s = time.monotonic() + timeout_s
        while self._read():
            assert time.monotonic() < limit_s, f"still running:\n{self.text}"
        self._child.wait()
        code = self._child.exitstatus
        return int(code) if code is not None else -int(self._child.signalstatus or 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._child.close(force=True)
