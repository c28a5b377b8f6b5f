"""Long work in a replica: runs of users, work for callers who wait, and processes that do it.

A user's run can be left: it stays in this replica's memory until the user starts the next one, or
for a day or a week. A restart of the replica ends and forgets it. A few runs work at once; others
wait in order. A user whose roles have changed since it started doesn't see what it read. One that
works in a process of its own can be cancelled.

Work for callers who wait: its processes end with it, and their errors are raised as if the work had
been done in this one.

A process has low priority and limited memory, and ends with its parent. The request is one line of
JSON on its input, so no secret is in a command line or in a setting. Progress, and at the end a
result or an error, are lines of JSON on its output. What it writes to its standard error goes where
the replica's goes, to the service's log.

Whether memory that is free again goes back to the system is up to the C library.
"""

import ctypes
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import BoundedSemaphore, Event, Lock, Thread, Timer
from traceback import extract_tb
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.data.database.append_failures import StoreError
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.kernel.errors import RefusalError

NICENESS: Final = 15
MEMORY_LIMIT: Final = 2**30  # bytes


def answer_request(answer: Callable[[dict[str, Any]], dict[str, Any]], cpu_seconds: int) -> None:
    """Read the request, answer it and end; `cpu_seconds` limits the time of a processor."""
    limit_process(cpu_seconds)
    answer_parent(answer)


def answer_parent(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Read the request, answer it and end."""
    line = sys.stdin.readline()
    if not line:  # the parent has ended
        sys.exit(1)
    Thread(target=_end_with_parent, daemon=True).start()
    _send(answer(json.loads(line)))


def limit_process(cpu_seconds: int) -> None:
    """Take a low priority and limit memory and time of this process."""
    os.nice(NICENESS)
    for kind, limit in (
        (resource.RLIMIT_DATA, MEMORY_LIMIT),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),  # a core file would hold records and the database's password
    ):
        resource.setrlimit(kind, (limit, limit))


def build_answer(work: Callable[[], object], memory_text: str) -> dict[str, Any]:
    """Return the message that ends a run: the result of `work`, or a sentence."""
    try:
        return {"result": to_jsonable_python(work())}
    except MemoryError:
        return {"error": memory_text, "kind": RefusalError.__name__}
    except BaseException as error:  # noqa: BLE001 - a panic of Polars is no Exception
        is_sentence = isinstance(error, RefusalError | StoreError | ValueError)
        name = type(error).__name__
        return {
            "error": str(error) if is_sentence else f"{name}; run the command to see where",
            "kind": name,
            "trace": traceback.format_exc(),
        }


def report_step(step: str, done: int, total: int) -> None:
    """Tell the parent what is being done, and how much of it is done."""
    _send({"step": step, "done": done, "total": total})


def _send(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """End this process when its input is closed: by the parent, or by the parent's end."""
    sys.stdin.read()
    os._exit(1)


SETTINGS_PREFIX: Final = "ROLLOUT_"
LEAN_ENVIRONMENT: Final = {
    "POLARS_MAX_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "_RJEM_MALLOC_CONF": "narenas:1,retain:false,dirty_decay_ms:0,muzzy_decay_ms:0",
}
"""Libraries with one thread each, and allocators that give memory back: what they keep for later
counts as used. Polars' allocator is jemalloc."""
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
MESSAGE_KINDS: Final = frozenset({"step", "result", "error"})
MessageCallback = Callable[[Mapping[str, Any]], object]
"""Called with each message of a process."""


def start_process(command: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a process that waits for its request.

    It never sees a stop of the service, not even while it imports: to stop is the parent's matter,
    which may wait for the answer.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # of this thread; inherited
    try:
        return subprocess.Popen(  # noqa: S603 - our own module
            tuple(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_build_environment(),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def follow_process(
    process: "subprocess.Popen[str]",
    request: Mapping[str, Any],
    read_message: MessageCallback,
    longest_seconds: float,
) -> None:
    """Send the request and pass on the process's messages, until it has ended.

    Whatever `read_message` raises ends the process and is raised. Other lines on the process's
    output, which a library may write, are left out.
    """
    assert process.stdin is not None  # noqa: S101 - a pipe
    assert process.stdout is not None  # noqa: S101 - a pipe
    timer = Timer(longest_seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with suppress(OSError):  # it has ended; its exit code says how
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        for line in process.stdout:
            message = _parse_message(line)
            if message is not None:
                read_message(message)
    finally:
        timer.cancel()
        process.kill()
        with suppress(OSError):
            process.__exit__(None, None, None)


def _parse_message(line: str) -> Mapping[str, Any] | None:
    """Return the message of a line; None if it has none."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and MESSAGE_KINDS & message.keys() else None


def _build_environment() -> dict[str, str]:
    """Return the environment of a process: without settings, which hold secrets."""
    others = {
        name: text for name, text in os.environ.items() if not name.startswith(SETTINGS_PREFIX)
    }
    return {**others, **LEAN_ENVIRONMENT}


TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Parameters of glibc's `mallopt`."""
KEPT_BYTES: Final = 128 * 1024


def return_freed_memory() -> None:
    """Have large blocks of this process returned once they are free.

    By itself glibc keeps blocks of up to 32 MiB for later, once blocks as large were freed, and
    has an arena for each thread. Other C libraries have no such parameters.
    """
    set_parameter = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_parameter is not None:
        set_parameter(TRIM_THRESHOLD, KEPT_BYTES)
        set_parameter(MMAP_THRESHOLD, KEPT_BYTES)
        set_parameter(ARENA_MAX, 1)


StepCallback = Callable[[str, int, int], None]
"""Called with the name of a step, its number from 0 on, and how many there are."""
MAX_WORKING: Final = 2
"""Runs of a kind that work at once in a replica, so that requests keep a share of its processor."""
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

    def __init__(
        self,
        command: Sequence[str],
        longest_seconds: float = LONGEST_WORK,
        *,
        broken_text: str = "",
    ) -> None:
        """Take the command of a module that calls `answer_request`.

        Args:
            command: starts a process.
            longest_seconds: a process is ended after so long.
            broken_text: what a user is told of a process that ended without an answer, where its
                limits are the likely reason.
        """
        self._command, self._longest_seconds = tuple(command), longest_seconds
        self._broken_text = broken_text
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

    def run(
        self,
        values: Mapping[str, Any],
        on_step: StepCallback | None = None,
        on_process: "Callable[[subprocess.Popen[str]], None] | None" = None,
    ) -> Any:
        """Take a place and return the result, as plain values.

        Args:
            values: what the process gets, ready for JSON.
            on_step: is told the steps.
            on_process: is given the process before it begins, to end it if need be.

        Raises:
            WorkBusyError: too many callers wait already; nothing was done.
            RefusalError: as in the process, or its limits ended it.
            StoreError: as in the process.
            ProcessFailedError: it raised something else, or ended without an answer.
        """
        with self.take_place():
            return self.run_in_place(values, on_step, on_process)

    def run_in_place(
        self,
        values: Mapping[str, Any],
        on_step: StepCallback | None = None,
        on_process: "Callable[[subprocess.Popen[str]], None] | None" = None,
    ) -> Any:
        """Return the result as `run` does, for a caller who has a place."""
        answer: dict[str, Any] = {}

        def read_message(message: Mapping[str, Any]) -> None:
            if "step" not in message:
                answer.update(message)
            elif on_step is not None:
                on_step(message["step"], message["done"], message["total"])

        process = start_process(self._command)
        if on_process is not None:
            on_process(process)
        follow_process(process, values, read_message, self._longest_seconds)
        if "result" not in answer:
            raise _build_error(answer, process.returncode, self._broken_text)
        return answer["result"]


def _build_error(answer: Mapping[str, Any], exit_code: int, broken_text: str) -> Exception:
    """Return the error that a process answered, or one that says how it ended."""
    if "error" not in answer:
        if broken_text:
            return RefusalError(broken_text)
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

    def __init__(self, work: ProcessWork, result_type: type[Result]) -> None:
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
            return TypeAdapter(self._result_type).validate_python(result)

        busy_text = f"a run of yours is not done; wait, cancel it, or run {advice}"
        return self.start(Caller(user), subject, work, at=at, busy_text=busy_text)

    def find_run(self, user: str, *, at: datetime) -> UserRun[Subject, Result] | None:
        """Return the user's last run; None without one in the last seven days."""
        return self.find(Caller(user), at=at)


def _get_rights(caller: Caller) -> tuple[tuple[AssignedRole, ...], bool]:
    return caller.role_assignments, caller.lacks_second_factor
