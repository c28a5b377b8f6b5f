"""Long work of users in a replica: its step, and its result or why it failed.

A run can be left: it stays in this replica's memory until the user starts the next one, or for a
day or a week. A restart of the replica ends and forgets it. A few runs work at once; others wait in
order. A user whose roles have changed since it started doesn't see what it read. One that works in
a process of its own can be cancelled.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from rollout.data.database.errors import StoreError
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.kernel.errors import RefusalError
from rollout.live.work.process_work import MAX_WORKING, ProcessFailedError, ProcessWork

if TYPE_CHECKING:
    import subprocess

    from pydantic import TypeAdapter


Subject = TypeVar("Subject")
Result = TypeVar("Result")
LIFETIME: Final = timedelta(days=1)
LONG_LIFETIME: Final = timedelta(days=7)
BUSY_TEXT: Final = "{} is not done; wait until it is"
BROKEN_TEXT: Final = "it ended with {}; try again, and tell who runs the service if it fails again"
log = logging.getLogger("rollout.runs")


@dataclass(eq=False)
class UserRun(Generic[Subject, Result]):
    """A run of one user; `result` or `error` is set once it has ended.

    Attributes:
        user: whose run it is.
        subject: what it is about, as pages say it, or the request.
        started_at: when it was started.
        rights: the user's roles then, and whether a second factor was lacking.
        step, done, total: what is done, its number, and how many steps there are.
        runs_before: runs of other users that end or begin before this one can begin.
        failure: what was raised; None unless it failed.
        is_cancelled: whether its user has ended it; nobody sees it then.
        process: what does the work; None before it begins, and where a thread does it.
    """

    user: str
    subject: Subject
    started_at: datetime
    rights: tuple[tuple[AssignedRole, ...], bool] = ((), False)
    step: str = ""
    done: int = 0
    total: int = 0
    runs_before: int = 0
    result: Result | None = None
    error: str = ""
    failure: Exception | None = None
    is_cancelled: bool = False
    process: "subprocess.Popen[str] | None" = None
    _ended: Event = field(default_factory=Event)

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return not self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        return self._ended.wait(seconds)

    def execute(
        self,
        work: "Callable[[UserRun[Subject, Result]], Result]",
        end: "Callable[[UserRun[Subject, Result]], None]",
    ) -> None:
        """Do the work, then what its end needs; what either raises becomes the error."""
        try:
            self.result = work(self)
        except BaseException as error:  # noqa: BLE001 - also a panic of polars: the thread goes on
            self._record_failure(error)
        try:
            end(self)
        except Exception as error:  # noqa: BLE001 - as above
            self._record_failure(error)
        self.end(self.result)

    def end(self, result: Result | None) -> None:
        """Let it count as ended, with a result or none."""
        self.result = result
        self._ended.set()

    def follow(self, process: "subprocess.Popen[str]") -> None:
        """Note the process that does the work, which a cancel ends."""
        self.process = process
        if self.is_cancelled:
            process.kill()

    def cancel(self) -> None:
        """End the work if a process does it."""
        self.is_cancelled = True
        process = self.process  # read once: it may begin meanwhile
        if process is not None:
            process.kill()

    def _record_failure(self, error: BaseException) -> None:
        """Keep why it failed, without what it had read; log what nobody may come back for."""
        is_sentence = isinstance(error, RefusalError | StoreError)
        has_sentence = is_sentence or isinstance(error, ProcessFailedError)
        self.error = str(error) if has_sentence else BROKEN_TEXT.format(type(error).__name__)
        self.failure = error if isinstance(error, Exception) else RuntimeError(self.error)
        if self.failure is not error:
            self.failure.__cause__ = error
        if not is_sentence:
            log.error("a run failed", exc_info=self.failure)
        raised: BaseException | None = error
        while raised is not None:
            traceback.clear_frames(raised.__traceback__)
            raised = raised.__cause__ or raised.__context__

    def record_step(self, step: str, done: int, total: int) -> None:
        """Note what is done, and how much of all."""
        self.step, self.done, self.total = step, done, total


Work = Callable[[UserRun[Subject, Result]], Result]


class UserRuns(Generic[Subject, Result]):
    """The last runs of each user, the newest last; of all, `MAX_WORKING` work at once.

    Args:
        lifetime: how long a run that has ended is kept.
        max_runs: how many runs of a user, of different subjects, are held.
    """

    def __init__(self, lifetime: timedelta = LIFETIME, max_runs: int = 1) -> None:
        self._lifetime, self._max_runs = lifetime, max_runs
        self._runs: dict[str, list[UserRun[Subject, Result]]] = {}
        self._waiting: deque[tuple[UserRun[Subject, Result], Work[Subject, Result]]] = deque()
        self._workers = self._working = 0  # threads, and those of them that have begun a run
        self._lock = Lock()

    def start(
        self,
        caller: Caller,
        subject: Subject,
        work: Work[Subject, Result],
        *,
        at: datetime,
        busy_text: str = BUSY_TEXT,
    ) -> UserRun[Subject, Result]:
        """Start a run, which replaces the user's oldest one, and return at once.

        Raises:
            RefusalError: a run of the user has not ended; `busy_text` says what to do.
        """
        with self._lock:
            for run in self._runs.get(caller.name, ()):
                if run.is_running:
                    raise RefusalError(busy_text.format(run.subject))
            return self._start(caller, subject, work, at)

    def find_or_start(
        self, caller: Caller, subject: Subject, work: Work[Subject, Result], *, at: datetime
    ) -> UserRun[Subject, Result]:
        """Return the user's run of the subject, else one that has not ended, else start one."""
        self._forget_old(at)
        with self._lock:
            self._forget_narrowed(caller)
            runs = self._runs.get(caller.name, [])
            of_subject = [run for run in runs if run.subject == subject]
            running = [run for run in runs if run.is_running]
            for run in of_subject + running:
                return run
            return self._start(caller, subject, work, at)

    def find(self, caller: Caller, *, at: datetime) -> UserRun[Subject, Result] | None:
        """Return the user's newest run; None without one, or if their roles have changed since."""
        self._forget_old(at)
        with self._lock:
            self._forget_narrowed(caller)
            runs = self._runs.get(caller.name)
            return runs[-1] if runs else None

    def forget(self, run: UserRun[Subject, Result]) -> None:
        """Forget a run; nothing happens if another one has replaced it."""
        with self._lock:
            self._remove(run)

    def cancel(self, user: str) -> None:
        """End the user's runs and forget them; nothing happens without one."""
        with self._lock:
            runs = tuple(self._runs.get(user, ()))
            for run in runs:
                run.cancel()
                self._remove(run)
            cancelled = [pair for pair in self._waiting if pair[0] in runs]
            for pair in cancelled:
                self._waiting.remove(pair)
                self._end(pair[0])
                pair[0].end(None)
            self._number_waiting()

    def close(self) -> None:
        """End all runs."""
        for user in tuple(self._runs):
            self.cancel(user)

    def _list_newest(self) -> Iterator[UserRun[Subject, Result]]:
        """Yield each user's newest run."""
        return (runs[-1] for runs in tuple(self._runs.values()))

    def _remove(
        self,
        removed: UserRun[Subject, Result],
        next_run: UserRun[Subject, Result] | None = None,
    ) -> None:
        runs = self._runs.get(removed.user, ())
        others = [run for run in runs if run is not removed]
        if others:
            self._runs[removed.user] = others
        else:
            self._runs.pop(removed.user, None)
        if not removed.is_running and len(others) < len(runs):
            self._drop(removed, next_run)

    def _forget_narrowed(self, caller: Caller) -> None:
        """Forget the user's runs of other roles; one that works goes on and nobody sees it."""
        for run in self._runs.get(caller.name, ()):
            if run.rights != _get_rights(caller):
                self._remove(run)

    def _start(
        self, caller: Caller, subject: Subject, work: Work[Subject, Result], at: datetime
    ) -> UserRun[Subject, Result]:
        run: UserRun[Subject, Result] = UserRun(caller.name, subject, at, _get_rights(caller))
        runs = self._runs.setdefault(caller.name, [])
        runs.append(run)
        for oldest in runs[: -self._max_runs]:
            self._remove(oldest, run)
        self._waiting.append((run, work))
        if self._workers < MAX_WORKING:
            self._start_worker(run)
        else:
            self._number_waiting()
        return run

    def _start_worker(self, run: UserRun[Subject, Result]) -> None:
        """Start a thread; without one the user's run waits for another, or is given up."""
        try:
            Thread(target=self._work_off, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            if self._workers:
                self._number_waiting()
                return
            self._waiting.pop()
            self._remove(run)
            raise
        self._workers += 1

    def _work_off(self) -> None:
        """Execute waiting runs until none is left."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._workers -= 1
                    return
                run, work = self._waiting.popleft()
                run.runs_before = 0
                self._working += 1
                self._number_waiting()
            run.execute(work, self._end)
            with self._lock:
                self._working -= 1

    def _number_waiting(self) -> None:
        """Number the waiting runs; the first ones may have a thread that has not begun."""
        beginning = self._workers - self._working
        for position, (run, _) in enumerate(self._waiting):
            is_beginning = position < beginning
            run.runs_before = 0 if is_beginning else position - beginning + MAX_WORKING

    def _forget_old(self, at: datetime) -> None:
        with self._lock:
            for run in [run for runs in self._runs.values() for run in runs]:
                if not run.is_running and at - run.started_at >= self._lifetime:
                    self._remove(run)

    def _end(self, run: UserRun[Subject, Result]) -> None:
        """Do what the end of a run needs, before it counts as ended."""

    def _drop(
        self, run: UserRun[Subject, Result], next_run: UserRun[Subject, Result] | None
    ) -> None:
        """Do what is due when an ended run is forgotten, replaced by `next_run` or by none."""


class ProcessRuns(UserRuns[Subject, Result]):
    """Runs that are their user's own whatever their roles, each in a process of its own.

    Args:
        work: starts the processes.
        result_type: what their results are read as.
    """

    def __init__(self, work: ProcessWork, result_type: "TypeAdapter[Result]") -> None:
        super().__init__(LONG_LIFETIME)
        self._process_work, self._result_type = work, result_type

    def start_process(
        self, user: str, subject: Subject, values: Mapping[str, Any], *, advice: str, at: datetime
    ) -> UserRun[Subject, Result]:
        """Start a run, which replaces the user's last one, and return at once.

        Args:
            user: whose run it is.
            subject: what the page shows of it.
            values: what the process gets, ready for JSON.
            advice: the command that does the same, for the refusal.
            at: now.

        Raises:
            RefusalError: the user has one that has not ended.
        """

        def work(run: UserRun[Subject, Result]) -> Result:
            result = self._process_work.run(values, run.record_step, run.follow)
            return self._result_type.validate_python(result)

        busy_text = f"a run of yours is not done; wait, cancel it, or run {advice}"
        return self.start(Caller(user), subject, work, at=at, busy_text=busy_text)

    def find_run(self, user: str, *, at: datetime) -> UserRun[Subject, Result] | None:
        """Return the user's last run; None without one in the last seven days."""
        return self.find(Caller(user), at=at)


def _get_rights(caller: Caller) -> tuple[tuple[AssignedRole, ...], bool]:
    return caller.role_assignments, caller.lacks_second_factor
