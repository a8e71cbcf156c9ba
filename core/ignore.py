"""Which names of a datadir are ignored: gitignore syntax, from the config and `.realizeignore` files.

Ignored names are not indexed, announced or deleted; they stay visible locally. A path that is
already indexed when it becomes ignored keeps its entry as it is: the index no longer looks at it.
The files apply as `.gitignore` files do: to their directory and below, the deeper file and the later
line deciding, and nothing below an ignored directory comes back.

`load` does I/O, in workers; `ignored` only looks at what is loaded and may be called in any thread.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable

from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from core.disk import READ_FLAGS, is_gone
from core.paths import display, is_below
from core.types import RelPath

_log = logging.getLogger("realize.core.ignore")

IGNORE_FILE = b".realizeignore"

TEMP_PREFIX = b".realize-tmp-"
"""Names that Realize itself makes in a datadir while it replaces a file; never indexed."""

MAX_IGNORE_BYTES = 1024 * 1024
"""LIMIT: of an ignore file that is honoured; beyond it the rest is not read."""

_DIR_GROUP = b"ps_d"
"""The group by which pathspec marks the slash after a directory's name."""


class _Rule:
    """One line: whether it covers a path relative to its file, directories with a slash at the end."""

    __slots__ = ("_match", "include")

    def __init__(self, regex: bytes, include: bool) -> None:
        self.include = include
        if _DIR_GROUP in regex:
            # Git matches a whole path, level by level; pathspec's expression also what is below it.
            whole = regex if regex.startswith(b"^") else b".*" + regex
            self._match = re.compile(whole).fullmatch
        else:
            self._match = re.compile(regex).search

    def covers(self, path: bytes) -> bool:
        return self._match(path) is not None


class IgnoreRules:
    """The lines of one ignore file or of the config, the last first."""

    __slots__ = ("_rules",)

    def __init__(self, lines: Iterable[bytes], origin: str) -> None:
        """Compile ``lines``; those that are no pattern are logged with ``origin`` and left out."""
        rules: list[_Rule] = []
        for line in lines:
            try:
                regex, include = GitIgnoreSpecPattern.pattern_to_regex(line.rstrip(b"\r\n"))
                if regex is not None and include is not None:
                    rules.append(_Rule(regex, include))
            except (GitIgnorePatternError, re.error) as error:
                _log.warning("%s: %r is not a pattern: %s", origin, display(line), error)
        self._rules = tuple(reversed(rules))

    def __bool__(self) -> bool:
        """Say whether there is any pattern."""
        return bool(self._rules)

    def verdict(self, path: bytes) -> bool | None:
        """Say whether a path (relative to the file, no newlines, slash after a directory) is ignored.

        None: no line covers it.
        """
        for rule in self._rules:
            if rule.covers(path):
                return rule.include
        return None


class Ignore:
    """What is ignored in one datadir. Only whole-object replacement of entries: safe to read in threads."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Make it from the patterns of the config."""
        self._config = IgnoreRules((os.fsencode(pattern) for pattern in patterns), "config")
        self._files: dict[RelPath, IgnoreRules] = {}

    def load(self, directory: RelPath, dir_fd: int) -> None:
        """Read the ignore file of a directory, open as ``dir_fd``; a missing one clears its rules."""
        lines = _read_lines(directory, dir_fd)
        rules = IgnoreRules(lines, display(directory) + "/" + display(IGNORE_FILE)) if lines else None
        if rules:
            self._files[directory] = rules
        else:
            self._files.pop(directory, None)

    def forget(self, directory: RelPath) -> None:
        """Drop the rules of a directory that is gone, and of those below it."""
        for at in [at for at in self._files.copy() if is_below(at, directory)]:
            self._files.pop(at, None)

    def ignored(self, path: RelPath, *, is_dir: bool) -> bool:
        """Say whether a path, or a directory above it, is ignored."""
        if self._is_own(path):
            return True
        if not self._config and not self._files:
            return False
        end = path.find(b"/")
        while end >= 0:
            if self._decide(path[:end], is_dir=True):
                return True
            end = path.find(b"/", end + 1)
        return self._decide(path, is_dir=is_dir)

    def ignored_here(self, directory: RelPath, name: bytes, *, is_dir: bool) -> bool:
        """Say whether a name of a directory that is itself not ignored is ignored."""
        if name.startswith(TEMP_PREFIX):
            return True
        if not self._config and not self._files:
            return False
        return self._decide(directory + b"/" + name if directory else name, is_dir=is_dir)

    @staticmethod
    def _is_own(path: bytes) -> bool:
        return path.startswith(TEMP_PREFIX) or b"/" + TEMP_PREFIX in path

    def _decide(self, path: bytes, *, is_dir: bool) -> bool:
        # NUL cannot be in a name; it stands for newline, which ``.`` and ``$`` treat specially.
        text = (path + b"/" if is_dir else path).replace(b"\n", b"\0")
        if self._files:
            start = path.rfind(b"/")
            while start >= 0:
                verdict = self._verdict(RelPath(path[:start]), text[start + 1 :])
                if verdict is not None:
                    return verdict
                start = path.rfind(b"/", 0, start)
            verdict = self._verdict(RelPath(b""), text)
            if verdict is not None:
                return verdict
        return self._config.verdict(text) is True

    def _verdict(self, directory: RelPath, text: bytes) -> bool | None:
        rules = self._files.get(directory)
        return None if rules is None else rules.verdict(text)


def _read_lines(directory: RelPath, dir_fd: int) -> list[bytes]:
    try:
        fd = os.open(IGNORE_FILE, READ_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        if not is_gone(error):
            _log.warning("ignore file in %r cannot be read: %s", display(directory), error.strerror)
        return []
    try:
        return os.read(fd, MAX_IGNORE_BYTES).splitlines()
    except OSError as error:
        _log.warning("ignore file in %r cannot be read: %s", display(directory), error.strerror)
        return []
    finally:
        os.close(fd)
