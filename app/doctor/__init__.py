"""``realize doctor``: looks at the machine, the config and the daemon, and says what to do about each.

`examine` runs every check; a check that cannot be made says so and counts as well, unless something
the user must act on was found.
"""

from __future__ import annotations

from app.doctor import machine, running, storage
from app.doctor.check import Check
from app.settings import Settings
from core.config import Config
from core.errors import ConfigError

__all__ = ["Check", "examine"]


def examine(settings: Settings) -> list[Check]:
    """Return the outcome of every check, those of the machine first."""
    checks = machine.checks()
    config, config_checks = _config(settings)
    checks += config_checks
    is_running, daemon_checks = running.checks(settings)
    if config is not None:
        checks += machine.config_checks(config)
        checks += storage.checks(config, is_running=is_running)
        checks += machine.port_checks(config, is_running=is_running)
        checks += machine.mount_checks(config)
    return checks + daemon_checks


def _config(settings: Settings) -> tuple[Config | None, list[Check]]:
    path = settings.config_path
    try:
        config = settings.load(offline_ok=True)
    except ConfigError as error:
        fix = error.hint or "correct it; `realize config check` says when it is right"
        return None, [Check("config", ok=False, detail=problem, fix=fix) for problem in error.problems]
    return config, [Check("config", ok=True, detail=str(path))]
