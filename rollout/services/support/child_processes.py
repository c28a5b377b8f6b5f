"""Processes of a replica that do one piece of work; `limited_process` is the other side.

The request is one line on the process's input, so no secret is in a command line or in a setting.
"""

import json
import os
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
MessageCallback = Callable[[Mapping[str, Any]], object]
"""Called with each message of a process."""


def start_process(command: Sequence[str]) -> "subprocess.Popen[str]":
    """Start a process that waits for its request."""
    return subprocess.Popen(  # noqa: S603 - our own module
        tuple(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_build_environment(),
    )


def follow_process(
    process: "subprocess.Popen[str]",
    request: Mapping[str, Any],
    read_message: MessageCallback,
    longest_seconds: float,
) -> None:
    """Send the request and pass on what the process says, until it has ended."""
    assert process.stdin is not None  # noqa: S101 - a pipe
    assert process.stdout is not None  # noqa: S101 - a pipe
    timer = Timer(longest_seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        with suppress(OSError, ValueError, KeyError, TypeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                read_message(json.loads(line))
    finally:
        timer.cancel()
        process.kill()
        with suppress(OSError):
            process.__exit__(None, None, None)


def _build_environment() -> dict[str, str]:
    """Return the environment of a process: without settings, which hold secrets."""
    others = {
        name: text for name, text in os.environ.items() if not name.startswith(SETTINGS_PREFIX)
    }
    return {**others, **LEAN_ENVIRONMENT}
