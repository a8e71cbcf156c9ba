"""``trash``: content that was replaced or deleted and is still held."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from app import output, words
from app.client import call
from app.commands.options import Below, Json, full_path, locate, settings_of, shown_path
from core.errors import ContentError, PartialError, UsageError
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, Restored, TrashRow

_HELP = """\
Content that was replaced or deleted on this host because of another one. It is held until its room is
needed."""
_HASH_LENGTH = 64


def register(root: typer.Typer) -> None:
    """Add ``trash``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("list")(_list)
    group.command("restore")(_restore)
    root.add_typer(group, name="trash", help=_HELP, short_help="Replaced and deleted content still held.")


def _list(
    context: typer.Context,
    path: Below = None,
    as_json: Json = False,
) -> None:
    """List what is in the trash, the newest first, with when, why and by whom.

    Examples: `realize trash list`, `realize trash list docs/2024 --json`
    """

    async def work(api: Api) -> tuple[TrashRow, ...]:
        return await api.trash_list(await locate(api, path) if path is not None else None)

    rows = call(settings_of(context), work)
    if as_json:
        for row in rows:
            output.emit_json(
                {
                    "path": full_path(row.at),
                    "size": row.size,
                    "mtime_ns": row.mtime_ns,
                    "mode": row.mode,
                    "hash": row.hash.hex(),
                    "when_ns": row.when_ns,
                    "why": row.why,
                    "by": row.by,
                }
            )
        return
    if not rows:
        output.note("the trash is empty")
        return
    head = ("when", "why", "by", "size", "content", "path")
    output.table([_row(row) for row in rows], head=head, right=(3,))


def _row(row: TrashRow) -> list[str]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.when_ns / 1e9))
    size = words.human_bytes(row.size)
    return [when, row.why, display(row.by) or "-", size, row.hash.hex()[:12], shown_path(row.at)]


def _restore(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="PATH", help="ARENA/PATH or a path on disk.")],
    content: Annotated[
        str, typer.Option("--content", metavar="HASH", help="The version, by the beginning of its hash.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Put the newest content of a path back; what is there now goes to the trash.

    Of a directory everything below it comes back that is not there now. Exit 3 when some could not be.

    Examples: `realize trash restore docs/report.pdf`, `realize trash restore docs/2024`
    """
    prefix = _prefix(content)

    async def work(api: Api) -> tuple[Restored, ...]:
        return await api.trash_restore(await locate(api, path), content=prefix)

    rows = call(settings_of(context), work)
    for row in rows:
        if as_json:
            output.emit_json({"path": full_path(row.at), "size": row.size, "error": row.error})
        elif not row.error:
            print(f"{shown_path(row.at)}: {words.human_bytes(row.size)} restored")
    failed = [row for row in rows if row.error]
    for row in failed:
        output.fail(shown_path(row.at), ContentError(row.error))
    if failed:
        what = f"{len(failed)} of {words.counted(len(rows), 'file')} could not be restored"
        raise PartialError(what) if len(failed) < len(rows) else ContentError(what)


def _prefix(text: str) -> bytes:
    """Return the bytes that the beginning of a hash in hex stands for.

    Raises:
        UsageError: it is none.
    """
    even = text[: len(text) // 2 * 2]
    try:
        if len(text) <= _HASH_LENGTH:
            return bytes.fromhex(even)
    except ValueError:
        pass
    raise UsageError(f"{text!r} is not the beginning of a hash", hint="`realize trash list` shows them")
