"""Long work of users in threads of one replica: its step, and its result or why it failed.

A run can be left: it stays in this replica's memory until the user starts the next one, or for a
day. A restart of the replica ends and forgets it. A few runs work at once; others wait in order.
A user whose roles have changed since it started doesn't see what it read.
"""

import logging
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event, Lock, Thread
from typing import Final, Generic, TypeVar

from rollout.data.database.errors import StoreError
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.kernel.errors import RefusalError

Result = TypeVar("Result")
StepCallback = Callable[[str, int, int], None]
"""Called with the name of a step, its number from 0 on, and how many there are."""

LIFETIME: Final = timedelta(days=1)
MAX_WORKING: Final = 2
"""Runs of a kind that work at once in a replica, so that requests keep a share of its processor."""
BROKEN_TEXT: Final = "it ended with {}; try again, and tell who runs the service if it fails again"
log = logging.getLogger("rollout.runs")


@dataclass
class UserRun(Generic[Result]):
    """A run of one user; `result` or `error` is set once it has ended.

    Attributes:
        subject: what it is about, as pages say it.
        started_at: when it was started.
        rights: the user's roles then, and whether a second factor was lacking.
        step, done, total: what is done, its number, and how many steps there are.
        runs_before: runs of other users that end or begin before this one can begin.
        failure: what was raised; None unless it failed.
    """

    subject: str
    started_at: datetime
    rights: tuple[tuple[AssignedRole, ...], bool] = ((), False)
    step: str = ""
    done: int = 0
    total: int = 0
    runs_before: int = 0
    result: Result | None = None
    error: str = ""
    failure: Exception | None = None
    _ended: Event = field(default_factory=Event)

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return not self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; return whether it has ended."""
        return self._ended.wait(seconds)

    def execute(self, work: Callable[[StepCallback], Result]) -> None:
        """Do the work; what it raises becomes the error."""
        try:
            self.result = work(self._record_step)
        except BaseException as error:  # noqa: BLE001 - also a panic of polars: the thread goes on
            self._record_failure(error)
        finally:
            self._ended.set()

    def _record_failure(self, error: BaseException) -> None:
        """Keep why it failed, without what it had read; log what nobody may come back for."""
        is_sentence = isinstance(error, RefusalError | StoreError)
        self.error = str(error) if is_sentence else BROKEN_TEXT.format(type(error).__name__)
        self.failure = error if isinstance(error, Exception) else RuntimeError(self.error)
        if self.failure is not error:
            self.failure.__cause__ = error
        if not is_sentence:
            log.error("a run failed", exc_info=self.failure)
        raised: BaseException | None = error
        while raised is not None:
            traceback.clear_frames(raised.__traceback__)
            raised = raised.__cause__ or raised.__context__

    def _record_step(self, step: str, done: int, total: int) -> None:
        self.step, self.done, self.total = step, done, total


class UserRuns(Generic[Result]):
    """The last runs of each user, the newest last; of all, `MAX_WORKING` work at once.

    Args:
        lifetime: how long a run that has ended is kept.
        max_runs: how many runs of a user, of different subjects, are held.
    """

    def __init__(self, lifetime: timedelta = LIFETIME, max_runs: int = 1) -> None:
        self._lifetime, self._max_runs = lifetime, max_runs
        self._runs: dict[str, list[UserRun[Result]]] = {}
        self._waiting: deque[tuple[UserRun[Result], Callable[[StepCallback], Result]]] = deque()
        self._workers = self._working = 0  # threads, and those of them that have begun a run
        self._lock = Lock()

    def start(
        self, caller: Caller, subject: str, work: Callable[[StepCallback], Result], *, at: datetime
    ) -> UserRun[Result]:
        """Start a run, which replaces the user's oldest one, and return at once.

        Raises:
            RefusalError: a run of the user has not ended.
        """
        with self._lock:
            for run in self._runs.get(caller.name, ()):
                if run.is_running:
                    raise RefusalError(f"{run.subject} is not done; wait until it is")
            return self._start(caller, subject, work, at)

    def find_or_start(
        self, caller: Caller, subject: str, work: Callable[[StepCallback], Result], *, at: datetime
    ) -> UserRun[Result]:
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

    def find(self, caller: Caller, *, at: datetime) -> UserRun[Result] | None:
        """Return the user's newest run; None without one, or if their roles have changed since."""
        self._forget_old(at)
        with self._lock:
            self._forget_narrowed(caller)
            runs = self._runs.get(caller.name)
            return runs[-1] if runs else None

    def forget(self, user: str, run: UserRun[Result]) -> None:
        """Forget the user's run; nothing happens if another one has replaced it."""
        with self._lock:
            self._remove(user, run)

    def _remove(self, user: str, removed: UserRun[Result]) -> None:
        runs = [run for run in self._runs.get(user, ()) if run is not removed]
        if runs:
            self._runs[user] = runs
        else:
            self._runs.pop(user, None)

    def _forget_narrowed(self, caller: Caller) -> None:
        """Forget the user's runs of other roles; one that works goes on and nobody sees it."""
        for run in self._runs.get(caller.name, ()):
            if run.rights != _get_rights(caller):
                self._remove(caller.name, run)

    def _start(
        self, caller: Caller, subject: str, work: Callable[[StepCallback], Result], at: datetime
    ) -> UserRun[Result]:
        run: UserRun[Result] = UserRun(subject, at, _get_rights(caller))
        self._runs[caller.name] = [*self._runs.get(caller.name, ()), run][-self._max_runs :]
        self._waiting.append((run, work))
        if self._workers < MAX_WORKING:
            self._start_worker(caller.name, run)
        else:
            self._number_waiting()
        return run

    def _start_worker(self, user: str, run: UserRun[Result]) -> None:
        """Start a thread; without one the user's run waits for another, or is given up."""
        try:
            Thread(target=self._work_off, daemon=True).start()
        except RuntimeError:  # the system gives no more threads
            if self._workers:
                self._number_waiting()
                return
            self._waiting.pop()
            self._remove(user, run)
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
            run.execute(work)
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
            for user, runs in tuple(self._runs.items()):
                for run in runs:
                    if not run.is_running and at - run.started_at >= self._lifetime:
                        self._remove(user, run)


def _get_rights(caller: Caller) -> tuple[tuple[AssignedRole, ...], bool]:
    return caller.role_assignments, caller.lacks_second_factor
