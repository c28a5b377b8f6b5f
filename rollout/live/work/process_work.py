"""Work in processes that end with it, for callers who wait.

Errors of the process are raised as if the work had been done in this one.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import BoundedSemaphore
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Final

from rollout.data.database.errors import StoreError
from rollout.kernel.errors import RefusalError
from rollout.live.work.limited_process import follow_process, start_process

if TYPE_CHECKING:
    import subprocess


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
        """Take the command of a module that calls `limited_process.answer_parent`.

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
