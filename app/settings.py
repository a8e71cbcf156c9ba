"""The options that stand before every command, and what follows from them: which config, which socket."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from core import config
from core.config import Config, Overrides


@dataclass
class Settings:
    """Global options of one run of the command line, filled in before the command starts."""

    config: Path | None = None
    socket: Path | None = None
    log_level: str | None = None
    log_json: bool = False

    @property
    def debug(self) -> bool:
        """Whether errors show their traceback."""
        level = self.log_level or os.environ.get("REALIZE_LOG", "")
        return level.split(",")[0].strip().lower() == "debug"

    @property
    def config_path(self) -> Path:
        """The config file, which may not exist."""
        return config.find(self.config, os.environ)

    @property
    def flags(self) -> str:
        """The option to repeat in a command line we suggest, with a space before it; "" when not needed."""
        return f" --config {self.config}" if self.config is not None else ""

    def socket_path(self) -> Path:
        """Return the control socket of the daemon that is meant.

        Raises:
            ConfigError: the config file that was asked for does not exist or is unreadable.
        """
        if self.socket is not None:
            return Path(os.path.abspath(self.socket))
        path = self.config_path
        asked_for = self.config is not None or os.environ.get("REALIZE_CONFIG")
        if not asked_for and not path.exists():
            return config.default_socket(os.environ)
        return config.socket_of(path, os.environ)

    def load(self, overrides: Overrides | None = None, *, offline_ok: bool = False) -> Config:
        """Return the checked configuration.

        Raises:
            ConfigError: all that is wrong with it.
        """
        return config.load(self.config_path, offline_ok=offline_ok, overrides=overrides)
