"""Every command of the dashboard in one list: key bindings, footer, help and palette are made from it.

Pure. A command that cannot act now says why: `Command.why_not` gets the facts and returns the reason,
"" when it can. Ids are the names by which keys can be remapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from core.api import PeerStatus

PANES = ("arenas", "connections", "churten", "marks", "activity")


@dataclass(frozen=True, slots=True)
class Facts:
    """What commands may depend on; a snapshot of what the focused pane shows."""

    pane: str = "arenas"
    on: str = ""
    """What the cursor is on: ``arena``, ``dir``, ``file``, ``peer``, ``job``, ``failed``, ``hashing``,
    ``mark``, ``event``; "" for nothing."""
    selected: int = 0
    expanded: bool = False
    has_path: bool = False
    explicit: bool = True
    peer: PeerStatus | None = None
    churten_running: bool | None = None
    undo: str = ""
    held: int = 0
    """Deletions that wait for the user, in all arenas."""
    filtered: bool = False


def _always(_: Facts) -> str:
    return ""


def _needs_path(facts: Facts) -> str:
    return "" if facts.has_path or facts.selected else "no path is chosen here"


def _needs_row(facts: Facts) -> str:
    return "" if facts.on else "there is nothing here yet"


def _can_list(facts: Facts) -> str:
    return "" if facts.on or facts.filtered else "there is nothing here yet"


def _can_expand(facts: Facts) -> str:
    if facts.on in ("arena", "dir"):
        return ""
    return "a file has nothing to open" if facts.on else "there is nothing here yet"


def _can_unset(facts: Facts) -> str:
    if not facts.selected and facts.has_path and not facts.explicit:
        return "no mark is set here; it is inherited. Unset it where it comes from (i says where)"
    return _needs_path(facts)


def _can_undo(facts: Facts) -> str:
    return "" if facts.undo else "no change of a mark to undo"


def _can_confirm(facts: Facts) -> str:
    return "" if facts.held else "no deletion is held"


def _can_connect(facts: Facts) -> str:
    peer = facts.peer
    if peer is None:
        return "no peer is chosen"
    if peer.state == "connected":
        return f"{peer.name} is connected"
    if peer.address is None and peer.state != "disabled":
        return f"{peer.name} has no address: it connects by itself"
    return ""


def _can_disconnect(facts: Facts) -> str:
    if facts.peer is None:
        return "no peer is chosen"
    return f"{facts.peer.name} is disabled already" if facts.peer.state == "disabled" else ""


def _can_copy(facts: Facts) -> str:
    if facts.peer is None:
        return "no peer is chosen"
    return "" if facts.peer.fingerprint else f"the fingerprint of {facts.peer.name} is not known"


def _can_start(facts: Facts) -> str:
    return "churten runs already" if facts.churten_running else ""


def _can_stop(facts: Facts) -> str:
    return "" if facts.churten_running else "churten is stopped already"


def _can_retry(facts: Facts) -> str:
    if facts.on == "failed":
        return ""
    return "only what failed or waits can be retried"


@dataclass(frozen=True, slots=True)
class Command:
    """A command. ``panes`` empty: everywhere. ``run`` is the method ``do_RUN`` of the pane or the app."""

    id: str
    keys: str
    label: str
    help: str
    run: str
    panes: tuple[str, ...] = ()
    why_not: Callable[[Facts], str] = _always
    footer: bool = True
    argument: str = ""


def _mark(word: str, key: str, what: str) -> Command:
    return Command(f"mark.{word}", key, word, what, "mark", ("arenas", "marks"), _needs_path, argument=word)


COMMANDS: tuple[Command, ...] = (
    Command("arenas.open", "enter", "open", "Open or close a directory", "toggle", ("arenas",), _can_expand),
    Command("arenas.expand", "right", "open", "Open a directory", "expand", ("arenas",), footer=False),
    Command(
        "arenas.collapse",
        "left",
        "close",
        "Close a directory, or go to its parent",
        "collapse",
        ("arenas",),
        footer=False,
    ),
    Command("arenas.select", "space", "select", "Select several paths", "select", ("arenas",), _needs_path),
    _mark("watch", "w", "Mark watch: cache when used"),
    _mark("keep", "k", "Mark keep: always cached, updated on change"),
    _mark("own", "o", "Mark own: a real file here, updated on change"),
    Command(
        "mark.unset",
        "u",
        "unset",
        "Remove the explicit mark",
        "mark",
        ("arenas", "marks"),
        _can_unset,
        argument="unset",
    ),
    Command("arenas.get", "g", "get", "Fetch the whole content now", "get", ("arenas",), _needs_path),
    Command(
        "arenas.verify",
        "v",
        "verify",
        "Read what is here again, and repair what is damaged from peers",
        "verify",
        ("arenas",),
        _needs_path,
        footer=False,
    ),
    Command(
        "arenas.filter",
        "slash",
        "filter",
        "Find files of the arena (fuzzy)",
        "filter",
        ("arenas",),
        _can_list,
    ),
    Command("pane.sort", "s", "sort", "Sort by the next column", "sort", ("arenas", "marks"), _can_list),
    Command(
        "pane.reverse",
        "S",
        "reverse",
        "Reverse the order",
        "reverse",
        ("arenas", "marks"),
        _can_list,
        footer=False,
    ),
    Command(
        "peer.connect", "c", "connect", "Enable a peer and dial it", "connect", ("connections",), _can_connect
    ),
    Command(
        "peer.disconnect",
        "d",
        "disconnect",
        "Close a connection and refuse the peer",
        "disconnect",
        ("connections",),
        _can_disconnect,
    ),
    Command(
        "peer.copy",
        "y",
        "copy fingerprint",
        "Copy the fingerprint of a peer",
        "copy",
        ("connections",),
        _can_copy,
    ),
    Command(
        "peer.info",
        "enter",
        "details",
        "All that is known of a peer",
        "details",
        ("connections",),
        _needs_row,
    ),
    Command("churten.start", "s", "start", "Let jobs run", "start", ("churten",), _can_start),
    Command("churten.stop", "x", "stop", "Checkpoint and stop all jobs", "stop", ("churten",), _can_stop),
    Command("churten.retry", "r", "retry", "Try failed work again now", "retry", ("churten",), _can_retry),
    Command(
        "path.show",
        "enter",
        "show in arenas",
        "Show the path in the arenas pane",
        "reveal",
        ("churten", "marks", "activity"),
        _needs_path,
    ),
    Command(
        "activity.filter",
        "slash",
        "filter",
        "Show only events with these words",
        "filter",
        ("activity",),
        _can_list,
    ),
    Command(
        "path.why",
        "i",
        "why",
        "Say rule by rule what holds for a path",
        "why",
        ("arenas", "churten", "marks", "activity"),
        _needs_path,
    ),
    Command(
        "mark.undo",
        "ctrl+z",
        "undo mark",
        "Undo the last change of marks",
        "undo",
        (),
        _can_undo,
        footer=False,
    ),
    Command(
        "deletes.confirm",
        "D",
        "confirm deletions",
        "Let deletions that are held go on",
        "confirm_deletes",
        (),
        _can_confirm,
        footer=False,
    ),
    Command("app.zoom", "z", "zoom", "Give the focused pane the whole screen", "zoom"),
    Command("app.help", "question_mark,f1", "help", "All keys", "help"),
    Command("app.palette", "ctrl+p", "palette", "Find a command, arena, peer or file", "palette"),
    Command("app.theme", "T", "theme", "Next theme", "theme", footer=False),
    Command("app.back", "escape", "back", "Leave a filter, a selection, a zoom", "back", footer=False),
    Command("app.quit", "q,ctrl+q", "quit", "Leave the dashboard", "quit"),
    *(
        Command(f"pane.{name}", str(n), name, f"Go to the {name} pane", "focus", footer=False, argument=name)
        for n, name in enumerate(PANES, 1)
    ),
)

BY_ID = {command.id: command for command in COMMANDS}

_KEY_NAMES = {
    "slash": "/", "question_mark": "?", "escape": "esc", "enter": "⏎", "space": "␣",
    "left": "←", "right": "→",
}  # fmt: skip


def key_name(keys: str) -> str:
    """Return the first key of a binding as people read it: ``^p``, ``/``."""
    key = keys.split(",")[0]
    if key.startswith("ctrl+"):
        return "^" + key[5:]
    return _KEY_NAMES.get(key, key)


def commands_of(pane: str) -> tuple[Command, ...]:
    """Return the commands that belong to a pane alone, in the order of the list ("" : the global ones)."""
    if not pane:
        return tuple(command for command in COMMANDS if not command.panes)
    return tuple(command for command in COMMANDS if pane in command.panes)


def footer_of(facts: Facts) -> tuple[tuple[Command, str], ...]:
    """Return the commands to show in the footer for a pane, each with why it cannot act ("" if it can)."""
    shown = [*commands_of(facts.pane), *commands_of("")]
    return tuple((command, command.why_not(facts)) for command in shown if command.footer)
