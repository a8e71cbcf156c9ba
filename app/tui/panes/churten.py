"""The churten pane: what is being transferred, hashed and waited for (spec 7, pane 3)."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import BindingType

from app.tui import rows
from app.tui.actions import Facts
from app.tui.messages import Reveal
from app.tui.panes.pane import Pane, bindings
from app.tui.present import Snapshot, path_text
from app.tui.table import RowList, Table
from core.api import ArenaPath, JobRow


class ChurtenPane(Pane):
    """Totals, hashing and jobs."""

    pane = "churten"
    columns = rows.JOB_COLUMNS
    BINDINGS: ClassVar[list[BindingType]] = bindings("churten")

    def about(self, snapshot: Snapshot) -> object:
        """Return what is shown of a snapshot."""
        return snapshot.jobs, snapshot.rates

    def show(self, snapshot: Snapshot) -> None:
        """Show the jobs; the cursor stays on its job."""
        super().show(snapshot)
        jobs = snapshot.jobs
        if jobs is None:
            return
        self.table.show(RowList(rows.jobs_rows(jobs, snapshot.rates)))
        self.set_empty(_nothing(jobs.running) if not self.table.source.count() else "")
        self.set_title(", ".join(filter(None, ("" if jobs.running else "stopped", rows.job_counts(jobs)))))

    def _job(self) -> JobRow | None:
        row, jobs = self.table.current, self.snapshot.jobs
        if row is None or jobs is None:
            return None
        return next((job for job in jobs.rows if rows.job_key(job) == row.key), None)

    def facts(self) -> Facts:
        """Say what the cursor is on, and whether churten runs."""
        job = self._job()
        on = "" if self.table.current is None else "hashing"
        if job is not None:
            on = "failed" if job.state in ("failed", "waiting") else "job"
        running = self.snapshot.jobs.running if self.snapshot.jobs is not None else None
        return Facts(pane=self.pane, on=on, has_path=job is not None, churten_running=running)

    def targets(self) -> tuple[ArenaPath, ...]:
        """Return the path of the job."""
        job = self._job()
        return (job.at,) if job is not None else ()

    def do_start(self) -> None:
        """Let jobs run."""
        self.dashboard.ask(lambda api: api.churten_start(), "starting churten", done="churten runs")

    def do_stop(self) -> None:
        """Stop all jobs."""
        self.dashboard.ask(
            lambda api: api.churten_stop(),
            "stopping churten",
            done="churten is stopped, also after a restart",
        )

    def do_retry(self) -> None:
        """Try again now."""
        job = self._job()
        if job is not None:
            path = path_text(job.at)
            self.dashboard.ask(
                lambda api: api.job_retry(job.at), f"retrying {path}", done=f"trying {path} again"
            )

    def do_reveal(self) -> None:
        """Show the path in the tree."""
        for at in self.targets():
            self.post_message(Reveal(at))

    def on_table_chosen(self, _: Table.Chosen) -> None:
        """A double click shows the path in the tree."""
        self.do_reveal()


def _nothing(running: bool) -> str:
    if not running:
        return "Churten is stopped: nothing is fetched or updated.\n\nPress s to start it."
    return (
        "Nothing to do: the disk agrees with the marks.\n\n"
        "Mark something keep (k) in the arenas pane (1) to fetch it."
    )
