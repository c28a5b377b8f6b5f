"""Runs of work in processes of their own, the last one of each user of a replica.

A run and its result stay in this replica's memory until the user starts another one, or for seven
days. They can be left and cancelled; a restart of the replica ends and forgets them.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from rollout.core.errors import RefusalError
from rollout.services.support.child_processes import follow_process, start_process

if TYPE_CHECKING:
    import subprocess

MAX_RUNS: Final = 2  # of a replica
LIFETIME: Final = timedelta(days=7)
RunRequest = TypeVar("RunRequest")
RunResult = TypeVar("RunResult")


@dataclass
class ProcessRun(Generic[RunRequest, RunResult]):
    """A run of one user; `result` or `error` is set when it has ended.

    Attributes:
        started_at: when it was started.
        process: None once it has ended.
        step, done, total: what is done, and how much of all.
    """

    request: RunRequest
    started_at: datetime
    process: "subprocess.Popen[str] | None"
    step: str = "records"
    done: int = 0
    total: int = 0
    result: RunResult | None = None
    error: str = ""
    is_cancelled: bool = False

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self.process is not None


@dataclass(frozen=True, slots=True)
class RunKind(Generic[RunResult]):
    """What the runs of one kind have in common.

    Attributes:
        command: the process, a module that calls `limited_process.answer_request`.
        result_type: what its result is read as.
        longest_seconds: a process that has not ended by then is ended.
        broken_text: the error of a process that ended without a result.
    """

    command: Sequence[str]
    result_type: type[RunResult]
    longest_seconds: float
    broken_text: str


class ProcessRuns(Generic[RunRequest, RunResult]):
    """The last run of each user."""

    def __init__(self, kind: RunKind[RunResult]) -> None:
        self._kind = kind
        self._runs: dict[str, ProcessRun[RunRequest, RunResult]] = {}
        self._lock = Lock()

    def start_process(
        self,
        user: str,
        request: RunRequest,
        values: Mapping[str, Any],
        *,
        advice: str,
        at: datetime,
    ) -> ProcessRun[RunRequest, RunResult]:
        """Start a run, which replaces the user's last one, and return at once.

        Args:
            user: whose run it is.
            request: what the page shows of it.
            values: what the process gets, ready for JSON.
            advice: the command that does the same, for refusals.
            at: now.

        Raises:
            RefusalError: the user has a running one, or the replica has as many as it may.
        """
        with self._lock:
            self._check_free(user, advice)
            process = start_process(self._kind.command)
            last_run = self._runs.get(user)
            run = self._runs[user] = ProcessRun(request, at, process)
        if last_run is not None:
            self._forget(last_run, next_run=run)
        Thread(target=self._follow, args=(run, process, values), daemon=True).start()
        return run

    def _check_free(self, user: str, advice: str) -> None:
        """Raise RefusalError if the user or the replica has enough runs; under the lock."""
        busy = self._list_busy_users()
        if user in busy:
            raise RefusalError(f"a run of yours is not done; wait, cancel it, or run {advice}")
        if len(busy) >= MAX_RUNS:
            raise RefusalError(
                f"{MAX_RUNS} users have runs now; wait until one is done, or run {advice}"
            )

    def _list_busy_users(self) -> set[str]:
        return {name for name, run in self._runs.items() if run.is_running}

    def find_run(self, user: str, *, at: datetime) -> ProcessRun[RunRequest, RunResult] | None:
        """Return the user's last run; None without one in the last seven days."""
        with self._lock:
            old_runs = {
                name: run
                for name, run in self._runs.items()
                if not run.is_running and at - run.started_at >= LIFETIME
            }
            for name in old_runs:
                del self._runs[name]
            last_run = self._runs.get(user)
        for run in old_runs.values():
            self._forget(run)
        return last_run

    def cancel(self, user: str) -> None:
        """End the user's run and forget it; nothing happens without one."""
        with self._lock:
            run = self._runs.pop(user, None)
        if run is None:
            return
        run.is_cancelled = True
        process = run.process  # read once: the run may end meanwhile
        if process is not None:
            process.kill()
        else:
            self._forget(run)

    def close(self) -> None:
        """End all runs."""
        for user in tuple(self._runs):
            self.cancel(user)

    def _follow(
        self,
        run: ProcessRun[RunRequest, RunResult],
        process: "subprocess.Popen[str]",
        values: Mapping[str, Any],
    ) -> None:
        """Send the request and store what the process says, until it ends."""
        with suppress(ValueError, KeyError):  # a result of another form
            follow_process(
                process, values, partial(self._store_message, run), self._kind.longest_seconds
            )
        if run.result is None and not run.error:
            run.error = self._kind.broken_text
        self._end(run)
        run.process = None
        if run.is_cancelled:
            self._forget(run)

    def _store_message(
        self, run: ProcessRun[RunRequest, RunResult], message: Mapping[str, Any]
    ) -> None:
        if "result" in message:
            text = json.dumps(message["result"])
            run.result = TypeAdapter(self._kind.result_type).validate_json(text)
        elif "error" in message:
            run.error = str(message["error"])
        else:
            run.step, run.done, run.total = (message[name] for name in ("step", "done", "total"))

    def _end(self, run: ProcessRun[RunRequest, RunResult]) -> None:
        """Do what the end of a process needs, before the run counts as ended."""

    def _forget(
        self,
        run: ProcessRun[RunRequest, RunResult],
        next_run: ProcessRun[RunRequest, RunResult] | None = None,
    ) -> None:
        """Do what needs doing when a run is forgotten, replaced by `next_run` or by none."""
