"""One piece of work in a process of low priority and limited memory; it ends with its parent.

The request is one line of JSON on its input; progress, and at the end a result or an error, are
lines of JSON on its output. `child_processes` is the other side.

Processes of a replica that do one piece of work; `limited_process` is the other side.

The request is one line on the process's input, so no secret is in a command line or in a setting.
What a process writes to its standard error goes where the replica's goes, to the service's log.

Memory that is free again: whether the C library gives it back to the system.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Thread, Timer
from typing import Any, Final

from pydantic_core import to_jsonable_python

from rollout.data.database.errors import StoreError
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
