"""``churten``: the jobs that make the disk agree with the marks."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from app import output, words
from app.client import call
from app.commands.options import Json, full_path, settings_of, shown_path
from core.paths import display

if TYPE_CHECKING:
    from core.api import Api, HashingRow, JobRow, Jobs

EXIT_NOT_RUNNING = 10
EXIT_INTERRUPTED = 130

_REFRESH_S = 0.25
"""LIMIT: progress is read four times a second; people do not read faster."""


def register(root: typer.Typer) -> None:
    """Add ``churten``."""
    group = typer.Typer(rich_markup_mode=None)
    group.command("start")(_start)
    group.command("stop")(_stop)
    group.command("is-running")(_is_running)
    group.command("jobs")(_jobs)
    group.command("run")(_run)
    root.add_typer(group, name="churten", help="Start, stop and watch the jobs that fetch what is marked.")


def _start(context: typer.Context, as_json: Json = False) -> None:
    """Let jobs run; remembered when the daemon starts again.

    Example: `realize churten start`
    """
    _switch(context, True, as_json)


def _stop(context: typer.Context, as_json: Json = False) -> None:
    """Stop all jobs where they are; remembered when the daemon starts again.

    Example: `realize churten stop`
    """
    _switch(context, False, as_json)


def _switch(context: typer.Context, running: bool, as_json: bool) -> None:
    async def work(api: Api) -> None:
        await (api.churten_start() if running else api.churten_stop())

    call(settings_of(context), work)
    _print_running(running, as_json)


def _print_running(running: bool, as_json: bool) -> None:
    if as_json:
        output.emit_json({"running": running})
    else:
        print(f"churten {'running' if running else 'stopped'}")


def _is_running(context: typer.Context, as_json: Json = False) -> None:
    """Exit 0 when jobs may run, 10 when not.

    Example: `realize churten is-running && echo yes`
    """

    async def work(api: Api) -> bool:
        return (await api.jobs(limit=0)).running

    running = call(settings_of(context), work)
    _print_running(running, as_json)
    if not running:
        raise typer.Exit(EXIT_NOT_RUNNING)


def _jobs(context: typer.Context, as_json: Json = False) -> None:
    """Show what is being done and what waits, with reasons.

    Example: `realize churten jobs --json`
    """

    async def work(api: Api) -> Jobs:
        return await api.jobs()

    found = call(settings_of(context), work)
    if as_json:
        output.emit_json(_as_json(found))
    else:
        _print_jobs(found)


def _as_json(found: Jobs) -> dict[str, object]:
    return {
        "running": found.running,
        "active": found.active,
        "queued": found.queued,
        "failed": found.failed,
        "rate": found.rate,
        "jobs": [_job_json(row) for row in found.rows],
        "hashing": [_hashing_json(row) for row in found.hashing],
    }


def _job_json(row: JobRow) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.structs.asdict(row)
    del fields["at"]
    return {"path": full_path(row.at)} | fields


def _hashing_json(row: HashingRow) -> dict[str, Any]:
    import msgspec

    return msgspec.structs.asdict(row)


def _print_jobs(found: Jobs) -> None:
    print(_summary(found))
    if found.hashing:
        output.table([_hashing_row(row) for row in found.hashing])
    head = ("action", "state", "done", "", "rate", "left", "path", "")
    if found.rows:
        output.table([_job_row(row) for row in found.rows], head=head, right=(2, 3, 4, 5))
    hidden = found.active + found.queued + found.failed - len(found.rows)
    if found.rows and hidden > 0:
        print(f"and {hidden} more")


def _summary(found: Jobs) -> str:
    state = "running" if found.running else "stopped"
    rate = f", {words.human_rate(found.rate)}" if found.active else ""
    counts = f"{found.active} active, {found.queued} queued, {found.failed} failed"
    return f"churten {state}: {counts}{rate}"


def _hashing_row(row: HashingRow) -> list[str]:
    left = f"{words.human_duration(row.eta_s)} left" if row.eta_s is not None else ""
    done = f"{row.files_done} of {row.files_total} files"
    sizes = f"{words.human_bytes(row.bytes_done)} of {words.human_bytes(row.bytes_total)}"
    return ["hashing", display(row.arena), done, sizes, left]


def _job_row(row: JobRow) -> list[str]:
    share = f"{row.bytes_done * 100 // row.bytes_total} %" if row.bytes_total else ""
    rate = words.human_rate(row.rate) if row.state == "active" else ""
    left = words.human_duration(row.eta_s) if row.eta_s is not None else ""
    name = shown_path(row.at) + (f" (+{row.files - 1} files)" if row.files > 1 else "")
    notes = [f"from {', '.join(row.peers)}" if row.peers else "", row.reason]
    if row.retry_s is not None:
        notes.append(f"again in {words.human_duration(row.retry_s)}")
    size = words.human_bytes(row.bytes_total)
    joined = display("; ".join(note for note in notes if note))
    return [row.action, row.state, share, size, rate, left, name, output.styled(joined, "dim")]


def _run(context: typer.Context, as_json: Json = False) -> None:
    """Run jobs until everything is idle or Ctrl-C, showing progress; then stop what this started.

    Example: `realize churten run`
    """
    line = output.ProgressLine()

    def show(found: Jobs) -> None:
        if as_json:
            output.emit_json(_as_json(found), now=True)
        else:
            line.show(_summary(found))

    async def work(api: Api) -> tuple[bool, Jobs]:
        was_running = (await api.jobs(limit=0)).running
        await api.churten_start()
        try:
            finished = await _until_idle(api, show)
            return finished, await api.jobs()
        finally:
            if not was_running:
                await _stop_again(api)

    try:
        finished, last = call(settings_of(context), work)
    finally:
        line.clear()
    show(last)
    if not as_json:
        print(_summary(last))
    if not finished:
        raise typer.Exit(EXIT_INTERRUPTED)
    if last.failed or last.queued:  # with everything idle, what is queued waits for a peer, or for room
        raise typer.Exit(3)


async def _stop_again(api: Api) -> None:
    import trio

    # Even when this command is being cancelled, the daemon must not be left doing what it was not before.
    with trio.move_on_after(5, shield=True):
        await api.churten_stop()


async def _until_idle(api: Api, show: Callable[[Jobs], None]) -> bool:
    """Show progress until the daemon is idle; False when a signal came first."""
    import trio

    from core.errors import NotYetError

    finished = False
    async with trio.open_nursery() as nursery:

        async def watch_signals() -> None:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    return

        nursery.start_soon(watch_signals)
        while not finished:
            show(await api.jobs())
            try:
                await api.wait_idle(_REFRESH_S)
                finished = True
            except NotYetError:
                continue
        nursery.cancel_scope.cancel()
    return finished
