"""Threads of jobs that may take long, so that a stop of the process doesn't wait for their end."""

import sys
import time
from collections.abc import Sequence
from datetime import datetime
from threading import Thread
from typing import Any

from apscheduler.executors.base import BaseExecutor, run_job


class DaemonThreadExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs each job in a thread of its own, which ends with the process."""

    def __init__(self, grace: float) -> None:
        """Build the executor; `grace` is how many seconds a stop waits for running jobs."""
        super().__init__()
        self._grace = grace
        self._threads: dict[str, Thread] = {}

    def _do_submit_job(self, job: Any, run_times: Sequence[datetime]) -> None:
        thread = Thread(target=self._run, args=(job, run_times), name=job.id, daemon=True)
        self._threads[job.id] = thread
        thread.start()

    def _run(self, job: Any, run_times: Sequence[datetime]) -> None:
        try:
            store = job._jobstore_alias  # noqa: SLF001 - as APScheduler's own executors
            events = run_job(job, store, run_times, self._logger.name)
        except BaseException:  # noqa: BLE001 - reported below
            self._run_job_error(job.id, *sys.exc_info()[1:])
        else:
            self._run_job_success(job.id, events)

    def shutdown(self, wait: bool = True) -> None:
        """Wait for running jobs, together as long as the grace."""
        ends_at = time.monotonic() + (self._grace if wait else 0)
        for thread in self._threads.values():
            thread.join(max(ends_at - time.monotonic(), 0))
