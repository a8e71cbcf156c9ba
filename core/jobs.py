"""The jobs that run now, for the dashboard: what each does, how far it is, how fast.

Values and arithmetic; time is given by the caller. The rate is an exponentially weighted moving
average over about three seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from core.api import ArenaPath, JobRow
from core.events import AnyEvent, JobAction, JobChanged, JobPhase

_RATE_S = 3.0
_EVENT_EVERY_S = 0.1
"""LIMIT: progress events of one job at most ten a second."""


class Job:
    """One running job: a path, or a group of small files that begins with it."""

    def __init__(
        self, number: int, at: ArenaPath, action: JobAction, files: int, total: int, now: float
    ) -> None:
        """Begin at time ``now`` (seconds, monotonic)."""
        self.number = number
        self.at = at
        self.action = action
        self.files = files
        self.bytes_done = 0
        self.bytes_total = total
        self.rate = 0.0
        self.peers: tuple[str, ...] = ()
        self._measured_at = now
        self._measured_bytes = 0
        self.told_at = now

    def advance(self, bytes_done: int, now: float) -> None:
        """Take the bytes done so far, and measure the rate."""
        self.bytes_done = bytes_done
        elapsed = now - self._measured_at
        if elapsed >= 0.2:
            current = (bytes_done - self._measured_bytes) / elapsed
            weight = 1 - math.exp(-elapsed / _RATE_S)
            self.rate = current if self.rate == 0 else self.rate + weight * (current - self.rate)
            self._measured_at, self._measured_bytes = now, bytes_done

    @property
    def eta_s(self) -> float | None:
        """Seconds left at the current rate; None while unknown."""
        return (self.bytes_total - self.bytes_done) / self.rate if self.rate > 0 else None

    def row(self) -> JobRow:
        """Return the job as the dashboard shows it."""
        return JobRow(
            job=self.number,
            at=self.at,
            action=self.action,
            state="active",
            files=self.files,
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            rate=self.rate,
            eta_s=self.eta_s,
            peers=self.peers,
        )

    def event(self, phase: JobPhase, reason: str = "", retry_s: float | None = None) -> JobChanged:
        """Return the job as an event."""
        return JobChanged(
            job=self.number,
            arena=self.at.arena,
            path=self.at.path,
            action=self.action,
            phase=phase,
            bytes_done=self.bytes_done,
            bytes_total=self.bytes_total,
            files=self.files,
            rate=self.rate,
            eta_s=self.eta_s,
            peers=self.peers,
            reason=reason,
            retry_s=retry_s,
        )


class JobBoard:
    """All running jobs of a daemon. Engine thread."""

    def __init__(self, emit: Callable[[AnyEvent], None], now: Callable[[], float]) -> None:
        """Tell of changes through ``emit``; ``now`` is a monotonic clock in seconds."""
        self._emit = emit
        self._now = now
        self._next = 1
        self._jobs: dict[int, Job] = {}

    def begin(self, at: ArenaPath, action: JobAction, files: int, total: int) -> Job:
        """Begin a job and tell of it."""
        job = Job(self._next, at, action, files, total, self._now())
        self._next += 1
        self._jobs[job.number] = job
        self._emit(job.event("started"))
        return job

    def advance(self, job: Job, bytes_done: int) -> None:
        """Take progress; told at most ten times a second."""
        now = self._now()
        job.advance(bytes_done, now)
        if now - job.told_at >= _EVENT_EVERY_S:
            job.told_at = now
            self._emit(job.event("progress"))

    def end(self, job: Job, phase: JobPhase, reason: str = "", retry_s: float | None = None) -> None:
        """End a job and tell how."""
        self._jobs.pop(job.number, None)
        self._emit(job.event(phase, reason, retry_s))

    def rows(self) -> list[JobRow]:
        """Return all running jobs, oldest first."""
        return [job.row() for job in self._jobs.values()]

    def rate(self) -> float:
        """Return the sum of the rates in bytes/s."""
        return sum(job.rate for job in self._jobs.values())

    def __len__(self) -> int:
        """Return the number of running jobs."""
        return len(self._jobs)


class EndIfCancelled:
    """Ends a job as cancelled if its task is, so that the board never shows a ghost."""

    def __init__(self, board: JobBoard, job: Job) -> None:
        """Watch over a job for the time of the context."""
        self._board, self._job = board, job

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._board.end(self._job, "cancelled", "stopped")
