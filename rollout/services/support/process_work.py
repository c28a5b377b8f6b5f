"""Work in processes that end with it, for callers who wait.

Errors of the process are raised as if the work had been done in this one.
"""

from collections.abc import Mapping, Sequence
from threading import BoundedSemaphore
from typing import Any, Final

from rollout.core.errors import RefusalError
from rollout.services.support.child_processes import follow_process, start_process
from rollout.services.support.user_runs import MAX_WORKING, StepCallback
from rollout.store.database.errors import StoreError

LONGEST_WORK: Final = 3_600.0  # seconds; nobody waits longer


class ProcessFailedError(Exception):
    """A process that failed, or ended without an answer; a note has its traceback."""


class ProcessWork:
    """Work of one kind in a replica: some processes at once, other callers wait for a place."""

    def __init__(self, command: Sequence[str]) -> None:
        """Take the command of a module that calls `limited_process.answer_parent`."""
        self._command = tuple(command)
        self._places = BoundedSemaphore(MAX_WORKING)

    def run(self, values: Mapping[str, Any], on_step: StepCallback | None = None) -> Any:
        """Return the result, as plain values.

        Args:
            values: what the process gets, ready for JSON.
            on_step: is told the steps.

        Raises:
            RefusalError: as in the process.
            StoreError: as in the process.
            ProcessFailedError: it raised something else, or ended without an answer.
        """
        answer: dict[str, Any] = {}

        def read_message(message: Mapping[str, Any]) -> None:
            if "step" not in message:
                answer.update(message)
            elif on_step is not None:
                on_step(message["step"], message["done"], message["total"])

        with self._places:
            process = start_process(self._command)
            follow_process(process, values, read_message, LONGEST_WORK)
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
