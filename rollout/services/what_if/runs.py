"""Runs of comparisons, each in a process of its own, for the users of one replica.

A run and its result stay in this replica's memory until the user starts another one, or for seven
days. They can be left and cancelled; a restart of the replica ends and forgets them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock, Thread, Timer
from typing import Final

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import Caller
from rollout.services.what_if.closed_cases import WhatIfRequest
from rollout.services.what_if.comparison import WhatIfResult
from rollout.store.database.session import Database

COMMAND: Final = (sys.executable, "-P", "-m", "rollout.services.what_if.what_if_process")
"""`-P` keeps modules of the working directory out."""
MAX_RUNS: Final = 2  # of a replica
LIFETIME: Final = timedelta(days=7)
LONGEST_RUN: Final = 6 * 3600.0  # seconds; one that waits uses no processor
BROKEN_TEXT: Final = (
    "it ended without a result: it may need more than 1 GiB of memory or half an hour of a"
    " processor; compare 30 days, or run the command"
)


@dataclass
class WhatIfRun:
    """A run of one user; `result` or `error` is set when it has ended.

    Attributes:
        request: rollout, draft and days.
        started_at: when it was started.
        process: None once it has ended.
        step, done, total: what is done, and how many replays of all.
    """

    request: WhatIfRequest
    started_at: datetime
    process: "subprocess.Popen[str] | None"
    step: str = "records"
    done: int = 0
    total: int = 0
    result: WhatIfResult | None = None
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self.process is not None


class WhatIfRuns:
    """The last run of each user."""

    def __init__(self, database: Database, command: Sequence[str] = COMMAND) -> None:
        self._database, self._command = database, tuple(command)
        self._runs: dict[str, WhatIfRun] = {}
        self._lock = Lock()

    def start(self, caller: Caller, request: WhatIfRequest, *, at: datetime) -> WhatIfRun:
        """Start a run, which replaces the user's last one, and return at once.

        Raises:
            RefusalError: the user has a running one, or the replica has as many as it may.
        """
        with self._lock:
            self._check_free(caller.name, request)
            process = subprocess.Popen(  # noqa: S603 - our own module
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env={**os.environ, "POLARS_MAX_THREADS": "1"},
            )
            run = self._runs[caller.name] = WhatIfRun(request, at, process)
        values = {
            "database": self._database.engine.url.render_as_string(hide_password=False),
            "caller": to_jsonable_python(caller),
            "request": to_jsonable_python(request),
            "at": at.isoformat(),
        }
        Thread(target=_follow, args=(run, process, json.dumps(values)), daemon=True).start()
        return run

    def _check_free(self, user: str, request: WhatIfRequest) -> None:
        command = f"`rollout what-if {request.rollout} draft.yaml --days {request.days}`"
        running = [name for name, run in self._runs.items() if run.is_running]
        if user in running:
            raise RefusalError(f"a run of yours is not done; wait, cancel it, or run {command}")
        if len(running) >= MAX_RUNS:
            raise RefusalError(
                f"{MAX_RUNS} users have runs now; wait until one is done, or run {command}"
            )

    def find(self, user: str, rollout: str, *, at: datetime) -> WhatIfRun | None:
        """Return the user's last run on a rollout; None without one in the last seven days."""
        with self._lock:
            self._runs = {
                name: run
                for name, run in self._runs.items()
                if run.is_running or at - run.started_at < LIFETIME
            }
            run = self._runs.get(user)
        return run if run is not None and run.request.rollout == rollout else None

    def cancel(self, user: str) -> None:
        """End the user's run and forget it; nothing happens without one."""
        with self._lock:
            run = self._runs.pop(user, None)
        process = None if run is None else run.process  # read once: the run may end meanwhile
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End all runs."""
        for user in tuple(self._runs):
            self.cancel(user)


def _follow(run: WhatIfRun, process: "subprocess.Popen[str]", request: str) -> None:
    """Send the request and store what the process says, until it ends."""
    assert process.stdin is not None  # noqa: S101 - a pipe
    assert process.stdout is not None  # noqa: S101 - a pipe
    timer = Timer(LONGEST_RUN, process.kill)
    timer.daemon = True
    timer.start()
    with suppress(OSError, ValueError, KeyError, TypeError):
        process.stdin.write(request + "\n")
        process.stdin.flush()
        for line in process.stdout:
            message = json.loads(line)
            if "result" in message:
                run.result = TypeAdapter(WhatIfResult).validate_json(json.dumps(message["result"]))
            elif "error" in message:
                run.error = str(message["error"])
            else:
                run.step, run.done, run.total = (
                    message[name] for name in ("step", "done", "total")
                )
    timer.cancel()
    process.kill()
    with suppress(OSError):
        process.__exit__(None, None, None)
    if run.result is None and not run.error:
        run.error = BROKEN_TEXT
    run.process = None
