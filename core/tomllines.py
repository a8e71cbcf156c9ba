"""Line numbers of the keys and values of a TOML document, which `tomllib` does not keep.

Pure. `line_numbers` walks a text that `tomllib` has accepted, so that it checks nothing itself. A place
is a tuple of keys and list positions: ``("arena", 1, "disk_usage", "max")``.
"""

from __future__ import annotations

import tomllib

Place = tuple[str | int, ...]

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def line_numbers(text: str) -> dict[Place, int]:
    """Return the line (from 1) of every table, key and list element of a valid TOML document."""
    return _Walk(text.replace("\r\n", "\n")).document()


class _Walk:
    """One pass over a text: ``_at`` is the offset of the next character, ``_line`` its line."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line = 1
        self._lines: dict[Place, int] = {}
        self._lengths: dict[Place, int] = {}

    def document(self) -> dict[Place, int]:
        table: Place = ()
        while self._skip_space():
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._peek() == "[":
                table = self._header(1)
            else:
                self._pair(table)
        return self._lines

    def _header(self, brackets: int) -> Place:
        line = self._line
        self._advance(brackets)
        keys = self._keys()
        self._skip_space()
        self._advance(brackets)
        place: Place = ()
        for key in keys[:-1]:
            self._lines.setdefault((*place, key), line)
            place = self._newest((*place, key))
        place = (*place, keys[-1])
        if brackets == 1:
            place = self._newest(place)
        else:
            self._lines.setdefault(place, line)
            self._lengths[place] = self._lengths.get(place, 0) + 1
            place = self._newest(place)
        self._lines[place] = line
        return place

    def _newest(self, place: Place) -> Place:
        """Return the place of the last element, where ``place`` is an array of tables."""
        return (*place, self._lengths[place] - 1) if place in self._lengths else place

    def _pair(self, table: Place) -> None:
        line = self._line
        place = table
        for key in self._keys():
            place = (*place, key)
            self._lines.setdefault(place, line)
        self._skip_space()
        self._advance(1)
        self._skip_space()
        self._value(place)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip_space()
            keys.append(self._string() if self._peek() in "\"'" else self._bare())
            self._skip_space()
            if self._peek() != ".":
                return keys
            self._advance(1)

    def _bare(self) -> str:
        start = self._at
        while self._peek() in _BARE:
            self._advance(1)
        return self._text[start : self._at]

    def _value(self, place: Place) -> None:
        match self._peek():
            case '"' | "'":
                self._string()
            case "[":
                self._list(place)
            case "{":
                self._inline_table(place)
            case _:
                while self._peek() not in ",]}\n#":
                    self._advance(1)

    def _list(self, place: Place) -> None:
        self._advance(1)
        index = 0
        while self._skip_space() and self._peek() != "]":
            if self._peek() == ",":
                self._advance(1)
                continue
            self._lines[*place, index] = self._line
            self._value((*place, index))
            index += 1
        self._advance(1)

    def _inline_table(self, place: Place) -> None:
        self._advance(1)
        while self._skip_space() and self._peek() != "}":
            if self._peek() == ",":
                self._advance(1)
                continue
            self._pair(place)
        self._advance(1)

    def _string(self) -> str:
        """Pass a string of any of the four kinds and return its value."""
        start = self._at
        quote = self._peek()
        fence = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._advance(len(fence))
        while not self._text.startswith(fence, self._at):
            self._advance(2 if quote == '"' and self._peek() == "\\" else 1)
        self._advance(len(fence))
        while len(fence) == 3 and self._peek() == quote:  # up to two quotes may touch the fence
            self._advance(1)
        value: str = tomllib.loads(f"x = {self._text[start : self._at]}")["x"]
        return value

    def _peek(self) -> str:
        """Return the next character; a line end at the end of the text."""
        return self._text[self._at] if self._at < len(self._text) else "\n"

    def _advance(self, count: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + count)
        self._at += count

    def _skip_space(self) -> bool:
        """Pass blanks, line ends and comments; says whether anything is left."""
        while self._at < len(self._text):
            if self._peek() == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._peek() in " \t\n":
                self._advance(1)
            else:
                return True
        return False
