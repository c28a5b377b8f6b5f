"""Work in processes that end with it, for callers who wait.

Errors of the process are raised as if the work had been done in this one.

Runs of work in processes of their own, the last one of each user of a replica.

A run and its result stay in this replica's memory until the user starts another one, or for seven
days. They can be left and cancelled; a restart of the replica ends and forgets them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from threading import BoundedSemaphore, Lock, Thread
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic import TypeAdapter

from rollout.data.database.errors import StoreError
from rollout.kernel.errors import RefusalError
from rollout.live.work.limited_process import follow_process, start_process
from rollout.live.work.user_runs import MAX_WORKING, StepCallback

if TYPE_CHECKING:
    import subprocess


LONGEST_WORK: Final = 3_600.0  # seconds
MAX_FRAMES: Final = 20
MAX_WAITING: Final = 8
"""Callers that wait for a place. Each holds a thread of the replica, which has 40 for requests."""


class WorkBusyError(RefusalError):
    """A replica that has as many callers waiting for such work as it may have."""

    code = "busy"


class ProcessFailedError(Exception):
    """A process that failed, or ended without an answer; a note has its traceback.

    Attributes:
        kind, stack: the type and the lines of code of what it raised, "" and none if unknown.
    """

    def __init__(self, text: str, kind: str = "", stack: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.kind, self.stack = kind, tuple(stack)


def list_frames(error: BaseException) -> list[str]:
    """Return the last lines of code of a traceback, without the error's text, for a log."""
    frames = extract_tb(error.__traceback__)[-MAX_FRAMES:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]


class ProcessWork:
    """Work of one kind in a replica: some processes at once, some callers wait for a place.

    All others are refused, so that the replica keeps threads for other requests.
    """

    def __init__(self, command: Sequence[str], longest_seconds: float = LONGEST_WORK) -> None:
        """Take the command of a module that calls `limited_process.answer_parent`.

        Args:
            command: starts a process.
            longest_seconds: a process is ended after so long.
        """
        self._command, self._longest_seconds = tuple(command), longest_seconds
        self._places = BoundedSemaphore(MAX_WORKING)
        self._callers = BoundedSemaphore(MAX_WORKING + MAX_WAITING)

    @contextmanager
    def take_place(self) -> Iterator[None]:
        """Wait for a place, and keep it for what the caller does with `run_in_place`.

        Raises:
            WorkBusyError: too many callers wait already.
        """
        if not self._callers.acquire(blocking=False):
            raise WorkBusyError("this service has many such requests now; try again in a moment")
        try:
            with self._places:
                yield
        finally:
            self._callers.release()

    def run(self, values: Mapping[str, Any], on_step: StepCallback | None = None) -> Any:
        """Take a place and return the result, as plain values.

        Args:
            values: what the process gets, ready for JSON.
            on_step: is told the steps.

        Raises:
            WorkBusyError: too many callers wait already; nothing was done.
            RefusalError: as in the process.
            StoreError: as in the process.
            ProcessFailedError: it raised something else, or ended without an answer.
        """
        with self.take_place():
            return self.run_in_place(values, on_step)

    def run_in_place(self, values: Mapping[str, Any], on_step: StepCallback | None = None) -> Any:
        """Return the result as `run` does, for a caller who has a place."""
        answer: dict[str, Any] = {}

        def read_message(message: Mapping[str, Any]) -> None:
            if "step" not in message:
                answer.update(message)
            elif on_step is not None:
                on_step(message["step"], message["done"], message["total"])

        process = start_process(self._command)
        follow_process(process, values, read_message, self._longest_seconds)
        if "result" not in answer:
            raise _build_error(answer, process.returncode)
        return answer["result"]


def _build_error(answer: Mapping[str, Any], exit_code: int) -> Exception:
    """Return the error that a process answered, or one that says how it ended."""
    if "error" not in answer:
        return ProcessFailedError(f"its process ended without an answer ({exit_code})")
    for error_type in (*_list_types(RefusalError), *_list_types(StoreError)):
        if error_type.__name__ == answer.get("kind"):
            return error_type.__new__(error_type, answer["error"])  # some take more than a text
    error = ProcessFailedError(answer["error"])
    error.add_note(answer.get("trace", ""))
    return error


def _list_types(error_type: type[Exception]) -> list[type[Exception]]:
    """Return an error's class with all that were made of it."""
    below = error_type.__subclasses__()
    return [error_type, *(lower for each in below for lower in _list_types(each))]


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
