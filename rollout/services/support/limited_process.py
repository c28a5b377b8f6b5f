"""One piece of work in a process of low priority and limited memory; it ends with its parent.

The request is one line of JSON on its input; progress, and at the end a result or an error, are
lines of JSON on its output. `child_processes` is the other side.
"""

import json
import os
import resource
import sys
import traceback
from collections.abc import Callable
from threading import Thread
from typing import Any, Final

from pydantic_core import to_jsonable_python

from rollout.core.errors import RefusalError
from rollout.store.database.errors import StoreError

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
