"""Jobs that run at their intervals though the wall clock steps.

APScheduler plans runs by the wall clock: one that is an hour ahead, even for seconds, puts each
job's next run off by an hour.
"""

import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any, Final

from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

WATCH_INTERVAL: Final = 0.25  # seconds
LATE: Final = timedelta(seconds=0.5)


class FromNowTrigger(BaseTrigger):  # type: ignore[misc]
    """Plans the next run an interval from now: a step ahead leaves no missed runs to list."""

    def __init__(self, interval: timedelta) -> None:
        """Build the trigger of one job."""
        self.interval = interval

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return the time of the next run."""
        return now + self.interval


class JobWatch:
    """A thread that lets a job run when it is overdue by the monotonic clock, or too far ahead."""

    def __init__(self, scheduler: BackgroundScheduler) -> None:
        """Build the watch of a scheduler's jobs without starting it."""
        self._scheduler = scheduler
        self._planned: dict[str, tuple[datetime, float]] = {}
        self._is_stopping = Event()
        self._thread = Thread(target=self._run, name="job-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.wait(WATCH_INTERVAL):
            for job in self._scheduler.get_jobs():
                if self._is_put_off(job):
                    with suppress(JobLookupError):
                        self._scheduler.modify_job(job.id, next_run_time=datetime.now(UTC))

    def _is_put_off(self, job: Any) -> bool:
        longest: timedelta = job.trigger.interval + LATE
        monotonic = time.monotonic()
        planned = self._planned.get(job.id)
        if planned is None or planned[0] != job.next_run_time:
            self._planned[job.id] = planned = job.next_run_time, monotonic
        is_overdue = timedelta(seconds=monotonic - planned[1]) > longest
        ahead: timedelta = job.next_run_time - datetime.now(UTC)
        return is_overdue or ahead > longest
