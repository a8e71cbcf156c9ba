"""Typed reading of a TOML file that collects every problem with its line instead of stopping at one.

Knows nothing of what the keys mean: `core.config` asks `Section` for them one by one, and `Section.end`
reports those that nobody asked for.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from core.errors import ConfigError
from core.paths import display
from core.tomllines import Place, line_numbers

T = TypeVar("T")

_SHOWN_MAX = 60
"""LIMIT: characters of a value quoted in a problem."""

_DECODE_ERROR = re.compile(r"(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)", re.S)


class Problems:
    """The problems and warnings found in one file, each a complete line ``FILE:LINE: WHAT``."""

    def __init__(self, path: Path, lines: Mapping[Place, int]) -> None:
        """Collect for ``path``, whose places are at ``lines``."""
        self._file = display(str(path))
        self._lines = lines
        self._errors: list[tuple[int, str]] = []
        self.warnings: list[str] = []

    def line(self, place: Place) -> int:
        """Return the line of a place, or of the nearest table around it that is written down."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def add(self, place: Place, text: str) -> None:
        """Note an error at a place."""
        line = self.line(place)
        self._errors.append((line, f"{self._file}:{line}: {text}"))

    def warn(self, place: Place, text: str) -> None:
        """Note something that does not make the configuration wrong."""
        self.warnings.append(f"{self._file}:{self.line(place)}: {text}")

    def raise_if_any(self) -> None:
        """Raise all errors noted so far, in the order of the lines.

        Raises:
            ConfigError: there are some.
        """
        if self._errors:
            raise ConfigError([text for _, text in sorted(self._errors, key=lambda row: row[0])])


def read_toml(path: Path) -> tuple[dict[str, object], dict[Place, int]]:
    """Return the data of a TOML file and the lines of its places.

    Raises:
        ConfigError: it cannot be read or is not TOML.
    """
    shown = display(str(path))
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        hint = "`realize init` makes one"
        raise ConfigError([f"{shown}: there is no such config file"], hint=hint) from None
    except OSError as error:
        raise ConfigError([f"{shown}: cannot be read: {error.strerror}"]) from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise ConfigError([f"{shown}:{line}: not UTF-8 text: byte 0x{byte:02x}"]) from None
    try:
        data: dict[str, object] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_syntax_problem(shown, text, str(error))]) from None
    except RecursionError:
        raise ConfigError([f"{shown}: nested too deeply"]) from None
    return data, line_numbers(text)


def _syntax_problem(shown: str, text: str, error: str) -> str:
    match = _DECODE_ERROR.fullmatch(error)
    if match is None:
        return f"{shown}:1: not TOML: {display(error)}"
    rows = text.split("\n")
    line = int(match["line"]) if match["line"] else max(1, len(text.rstrip().split("\n")))
    source = rows[line - 1].strip() if line <= len(rows) else ""
    return f"{shown}:{line}: not TOML: {display(match['what'])}: {_shorten(display(source))}"


def show(value: object) -> str:
    """Return a value of the file for a message: quoted, sanitised, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        text = type(value).__name__
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        text = f"a list of {len(value)} tables"
    return _shorten(display(text))


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ``; did you mean "…"?`` for the nearest of ``words``, "" when none is near."""
    found = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return f'; did you mean "{display(found[0])}"?' if found else ""


class Section:
    """One table of the file: ``title`` names it in problems, as in ``arena "docs"``."""

    def __init__(self, problems: Problems, place: Place, title: str, data: Mapping[str, object]) -> None:
        """Read ``data`` found at ``place``."""
        self.problems = problems
        self.place = place
        self.title = title
        self._data = data
        self._asked: dict[str, None] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._data

    def bad(self, key: str, what: str, accepted: str = "", *, index: int | None = None) -> None:
        """Note that the value of ``key`` (or its ``index``-th element) is wrong."""
        place: Place = (*self.place, key)
        value = self._data.get(key)
        name = key
        if index is not None and isinstance(value, list):
            place, value, name = (*place, index), value[index], f"{key}[{index}]"
        shown = f" = {show(value)}" if key in self._data else ""
        tail = f"; accepted: {accepted}" if accepted else ""
        self.problems.add(place, f"{self._prefix}{name}{shown}: {what}{tail}")

    def warn(self, key: str, text: str) -> None:
        """Note a warning about ``key``."""
        shown = show(self._data.get(key))
        self.problems.warn((*self.place, key), f"{self._prefix}{key} = {shown}: {text}")

    def missing(self, key: str, accepted: str) -> None:
        """Note that a key is needed."""
        self.problems.add(self.place, f"{self._prefix}{key}: is missing; accepted: {accepted}")

    @property
    def _prefix(self) -> str:
        return f"{self.title}: " if self.title else ""

    def raw(self, key: str) -> object:
        """Return the value as it is, None when absent, and count the key as known."""
        self._asked[key] = None
        return self._data.get(key)

    def text(self, key: str, accepted: str = "text") -> str | None:
        """Return a string that is not empty, None when absent or wrong."""
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, str) and value:
            return value
        self.bad(key, "is empty" if value == "" else "is not text", accepted)
        return None

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self.raw(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.bad(key, "is not a boolean", "true or false")
        return default

    def count(self, key: str, default: int, *, highest: int) -> int:
        """Return a whole number from 1 to ``highest``."""
        value = self.raw(key)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= highest:
            return value
        self.bad(key, "is not such a number", f"a whole number from 1 to {highest}")
        return default

    def parsed(self, key: str, parse: Callable[[object], T], accepted: str) -> T | None:
        """Return ``parse(value)``, whose `ValueError` says what the value is not; None when absent."""
        value = self.raw(key)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError as error:
            self.bad(key, _is(str(error)), accepted)
            return None

    def texts(self, key: str, accepted: str) -> list[tuple[int, str]] | None:
        """Return the valid strings of a list with their positions, None when absent or no list."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list):
            self.bad(key, "is not a list", accepted)
            return None
        for index, item in enumerate(value):
            if not isinstance(item, str) or not item:
                self.bad(key, "is empty" if item == "" else "is not text", accepted, index=index)
        return [(index, item) for index, item in enumerate(value) if isinstance(item, str) and item]

    def table(self, key: str) -> Section:
        """Return the table ``key``, an empty one when absent or wrong."""
        value = self.raw(key)
        data: Mapping[str, object] = value if isinstance(value, dict) else {}
        if value is not None and not isinstance(value, dict):
            self.bad(key, "is not a table", self._table_form(key))
        title = f"{self._prefix}{key}" if self.title else f"[{key}]"
        return Section(self.problems, (*self.place, key), title, data)

    def _table_form(self, key: str) -> str:
        return f"a [{key}] table" if not self.title else f"{key} = {{ … }}"

    def tables(self, key: str) -> list[Section]:
        """Return the tables ``[[key]]``, each titled by its name."""
        value = self.raw(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            self.bad(key, "is not a list of tables", f"[[{key}]] with double brackets, once for each {key}")
            return []
        return [
            Section(self.problems, (*self.place, key, index), _title(key, index, item), item)
            for index, item in enumerate(value)
        ]

    def end(self) -> None:
        """Report the keys that were not asked for."""
        for key, value in self._data.items():
            if key not in self._asked:
                known = [name for name in self._asked if name not in self._data] or list(self._asked)
                accepted = ", ".join(sorted(self._asked))
                what = f"{self._prefix}{display(key)} = {show(value)}: unknown key"
                near = nearest(key, known) or nearest(key, self._asked)
                self.problems.add((*self.place, key), f"{what}{near}; accepted: {accepted}")


def _title(key: str, index: int, item: Mapping[str, object]) -> str:
    name = item.get("name")
    return f"{key} {show(name)}" if isinstance(name, str) and name else f"{key} {index + 1}"


def _is(text: str) -> str:
    return f"is {text}" if text.startswith(("not ", "a ", "too ", "more ")) else text
