"""Where log lines go and how they look (spec 3 §Logging). One call per process, before anything runs.

Names from elsewhere cannot forge lines: every message is made one printable line.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import datetime
from pathlib import Path

from core.errors import UsageError
from core.paths import display

_LEVELS = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
_ALIASES = {"warn": "warning"}

# Priorities of syslog, which sd-daemon(3) takes as a prefix <N>.
_PRIORITIES = {logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}

_FILE_MAX_BYTES = 1 << 20
"""LIMIT: the log file beside the dashboard is for reading back, not for archives."""


def check_level(text: str | None) -> None:
    """Check the value of ``--log-level``.

    Raises:
        UsageError: it is not a level.
    """
    if text is not None:
        try:
            parse_levels(text)
        except ValueError as error:
            accepted = "accepted: error, warning, info or debug, also by logger: info,realize.net=debug"
            raise UsageError(f"--log-level {text}: {error}", hint=accepted) from None


def parse_levels(text: str) -> dict[str, int]:
    """Return level by logger of a text like ``info,realize.net=debug``; the part without a name is ``""``.

    Raises:
        ValueError: a part is no level.
    """
    levels: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, has_name, level = part.rpartition("=")
        word = level.strip().lower()
        if (has_name and not name.strip()) or _ALIASES.get(word, word) not in _LEVELS:
            raise ValueError(f"{part!r} is not a level")
        levels[name.strip()] = _LEVELS[_ALIASES.get(word, word)]
    return levels


def configure(level: str | None, *, as_json: bool, default: str = "warning", on_screen: bool = False) -> None:
    """Send the log to stderr, or to a file where a dashboard has the terminal.

    Args:
        level: the value of ``--log-level``, checked; None: REALIZE_LOG, else ``default``.
        as_json: a JSON object on each line.
        default: the level when nothing is said.
        on_screen: a dashboard draws on this terminal.
    """
    levels = {"": _LEVELS[default]} | _levels_from_environment() | parse_levels(level or "")
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _OURS):
            root.removeHandler(handler)
            handler.close()
    root.addHandler(_handler(as_json=as_json, on_screen=on_screen))
    # Other libraries log to the root as well; only their warnings concern a user.
    root.setLevel(max(levels[""], logging.WARNING))
    logging.getLogger("realize").setLevel(levels[""])
    for name, number in levels.items():
        if name:
            logging.getLogger(name).setLevel(number)


def _levels_from_environment() -> dict[str, int]:
    text = os.environ.get("REALIZE_LOG", "")
    try:
        return parse_levels(text)
    except ValueError as error:
        raise UsageError(f"$REALIZE_LOG: {error}", hint="like info,realize.net=debug") from None


class _StderrHandler(logging.StreamHandler):  # type: ignore[type-arg]  # its stream is any text stream
    """Our handler on stderr, told apart from those that tests install."""


class _FileHandler(logging.FileHandler):
    """Our handler beside a dashboard."""


_OURS = (_StderrHandler, _FileHandler)


def _handler(*, as_json: bool, on_screen: bool) -> logging.Handler:
    handler: logging.Handler
    if on_screen and sys.stderr.isatty():
        handler = _file_handler()
        in_journal = False
    else:
        handler = _StderrHandler(sys.stderr)
        # LIMIT: systemd also gives device and inode of the journal's stream; a terminal is never it.
        in_journal = bool(os.environ.get("JOURNAL_STREAM")) and not sys.stderr.isatty()
    handler.setFormatter(JsonLines() if as_json else PlainLines(in_journal=in_journal))
    return handler


def log_file() -> Path:
    """Return the file that the log goes to while a dashboard has the terminal."""
    home = os.environ.get("XDG_STATE_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path(os.path.expanduser("~/.local/state"))
    return base / "realize" / "realize.log"


def _file_handler() -> logging.Handler:
    path = log_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.exists() and path.stat().st_size > _FILE_MAX_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return _FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError:
        return logging.NullHandler()  # a dashboard without a log file is better than none


class PlainLines(logging.Formatter):
    """``TIME level logger: message``; in the journal a priority instead of time and level."""

    def __init__(self, *, in_journal: bool) -> None:
        """Make a formatter."""
        super().__init__()
        self._in_journal = in_journal

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and the lines of a traceback after it."""
        lines = [f"{record.name}: {display(record.getMessage())}", *_traceback(record)]
        if self._in_journal:
            priority = _PRIORITIES.get(record.levelno, 6)
            return "\n".join(f"<{priority}>{line}" for line in lines)
        at = datetime.fromtimestamp(record.created).astimezone()
        lines[0] = f"{at.isoformat(timespec='milliseconds')} {record.levelname.lower()} {lines[0]}"
        return "\n".join(lines)


class JsonLines(logging.Formatter):
    """One object a line: time, level, logger, message, and the traceback of a bug."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created).astimezone()
        value: dict[str, object] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if lines := _traceback(record):
            value["traceback"] = "\n".join(lines)
        return json.dumps(value, ensure_ascii=True)


def _traceback(record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    text = logging.Formatter().formatException(record.exc_info)
    return [display(line) for line in text.splitlines()]
