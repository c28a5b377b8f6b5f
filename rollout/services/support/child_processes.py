"""Processes of a replica that do one piece of work; `limited_process` is the other side.

The request is one line on the process's input, so no secret is in a command line or in a setting.
What a process writes to its standard error goes where the replica's goes, to the service's log.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from threading import Timer
from typing import Any, Final

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
