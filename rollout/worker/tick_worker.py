"""Ticks in a process of their own, which is started when one is due and ended when it is idle.

The process that answers needs none of what counts units. What fails there ends autonomy here: a
write or a sign of damage at once, and a process that ends or says nothing within a pass counts as a
failed tick until one succeeds.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Event, Thread, Timer
from typing import Any, Final

from rollout.data.database.append_failures import TICK, DatabaseUnavailableError
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database
from rollout.kernel.calendar.instants import from_micros, to_micros
from rollout.live.tick_results import STORAGE_RETRY_DELAY, TickPass
from rollout.live.work.user_runs import ProcessFailedError, start_process

COMMAND: Final = (sys.executable, "-m", "rollout.worker.tick_process")
IDLE_SECONDS: Final = 60.0
"""Without a pass; slots that follow each other sooner keep the process."""
CHECK_SECONDS: Final = 1_800.0
SILENT_SECONDS: Final = 120.0
"""A process that says nothing for so long within a pass is ended; pages are counted in seconds."""
STOP_SECONDS: Final = 10.0
"""For the running pass when the service is stopped."""
END_SECONDS: Final = 2.0
Message = Mapping[str, Any]


class TickProcess:
    """A running process of ticks, and its messages as they come; None is its end."""

    def __init__(self, command: Sequence[str], settings: Message) -> None:
        self._process = start_process(command)
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._input = self._process.stdin
        self._messages: SimpleQueue[Message | None] = SimpleQueue()
        Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.send(settings)

    def send(self, message: Message) -> None:
        """Send the settings or a request; a process that has ended says so by its output."""
        with suppress(OSError):
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def wait_for_message(self, longest_seconds: float) -> Message | None:
        """Return the next message, None once it has ended or was silent for so long."""
        try:
            return self._messages.get(timeout=longest_seconds)
        except Empty:
            return None

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> int:
        """End it and return its exit code."""
        with suppress(OSError):
            self._input.close()
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _read(self, output: Any) -> None:
        for line in output:
            with suppress(ValueError):  # what a library wrote
                self._messages.put(json.loads(line))
        output.close()
        self._messages.put(None)


class TickWorker:
    """One replica's ticks, run by a process of ticks."""

    def __init__(self, database: Database, owner: str, command: Sequence[str] = COMMAND) -> None:
        """Build it without starting a process; `owner` names the replica in claims."""
        self._database, self._command = database, command
        url = database.engine.url.render_as_string(hide_password=False)
        self._settings = {"database": url, "owner": owner}
        self._process: TickProcess | None = None
        self._check_process: TickProcess | None = None
        self._next_due: dict[str, datetime] = {}
        self._last_pass = 0.0
        self._stopping = Event()

    def run_due_ticks(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        get_time: Callable[[], datetime] | None = None,
    ) -> TickPass:
        """Let the process run every due tick, as `TickScheduler` does; start it if one may be due.

        With `get_time` the process reads the machine's clock.

        Raises:
            DatabaseUnavailableError: the database does not respond; the pass ends.
        """
        due = self._list_due(at if get_time is None else max(at, get_time()))
        if self._stopping.is_set():
            return TickPass()
        if not due:
            self._end_if_idle()
            return TickPass()
        if self._process is not None and self._process.has_ended():
            self.close()  # between passes, which loses nothing
        if self._process is None:
            self._process = TickProcess(self._command, self._settings)
        values = {"at": to_micros(at), "narrow_only": narrow_only}
        self._process.send({**values, "reads_clock": get_time is not None})
        answer, ticking = self._follow(self._process, SILENT_SECONDS)
        self._last_pass = time.monotonic()
        if answer is None:
            return self._note_end(at, ticking or due)
        if text := answer.get("unavailable"):
            raise DatabaseUnavailableError(text)
        done = answer["done"]
        self._next_due = {name: from_micros(micros) for name, micros in done["next"].items()}
        errors = {name: _build_error(facts) for name, facts in done["errors"].items()}
        return TickPass(errors=errors, seconds_by_rollout=done["seconds"])

    def sample_evidence(self, at: datetime) -> dict[str, str]:
        """Check a sample of each rollout's evidence, in a process of its own that ends.

        Ticks don't wait for it. Returns by rollout what differs.

        Raises:
            DatabaseUnavailableError: the database does not respond.
            ProcessFailedError: the process failed, or took too long.
        """
        if self._stopping.is_set():
            return {}
        self._check_process = process = TickProcess(self._command, self._settings)
        process.send({"check": to_micros(at)})
        answer, _ = self._follow(process, CHECK_SECONDS)
        process.kill()
        exit_code, self._check_process = process.close(), None
        if answer is None:
            if self._stopping.is_set():
                return {}
            raise ProcessFailedError(f"the process that checks evidence ended within ({exit_code})")
        if text := answer.get("unavailable"):
            raise DatabaseUnavailableError(text)
        return dict(answer["differing"])

    def stop(self) -> None:
        """Begin no pass any more; the running one is given `STOP_SECONDS`, a check none."""
        self._stopping.set()
        if (checking := self._check_process) is not None:
            checking.kill()
        timer = Timer(STOP_SECONDS, self._kill)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _kill(self) -> None:
        process = self._process  # read once: the pass may end meanwhile
        if process is not None:
            process.kill()

    def _list_due(self, at: datetime) -> list[str]:
        names = list_rollout_names(self._database)
        return [name for name in names if at >= self._next_due.get(name, at)]

    def _end_if_idle(self) -> None:
        if time.monotonic() - self._last_pass > IDLE_SECONDS:
            self.close()

    def _follow(
        self, process: TickProcess, silent_seconds: float
    ) -> tuple[Message | None, list[str]]:
        """Return the message that ends a pass, None if the process ended, and what it did last."""
        ticking: list[str] = []
        while (message := process.wait_for_message(silent_seconds)) is not None:
            if "begun" in message:
                ticking = [message["begun"]]
            elif "failed" in message:
                self._database.append_failures.record_failure(*message["failed"])
            elif "succeeded" in message:
                self._database.append_failures.record_success(*message["succeeded"])
            elif "damaged" in message:
                self._database.damage_signs.text = message["damaged"]
            elif "log" in message:
                name, level, text, facts = message["log"]
                error = _build_error(facts) if facts else None
                logging.getLogger(name).log(level, "%s", text, exc_info=error)
            else:
                return message, ticking
        return None, ticking

    def _note_end(self, at: datetime, rollout_names: list[str]) -> TickPass:
        """Let humans decide where a process ended within a tick, until one succeeds."""
        assert self._process is not None  # noqa: S101 - the one that was followed
        self._process.kill()  # one that is silent
        exit_code = self._process.close()
        self._process = None
        if self._stopping.is_set():
            return TickPass()
        error = ProcessFailedError(f"the process of ticks ended within one ({exit_code})")
        for name in rollout_names:
            self._database.append_failures.record_failure(name, TICK, str(error))
            self._next_due[name] = at + STORAGE_RETRY_DELAY
        return TickPass(errors=dict.fromkeys(rollout_names, error))


def _build_error(facts: Message) -> ProcessFailedError:
    """Return an error with the traceback of the process as its note."""
    trace = facts["trace"]
    error = ProcessFailedError(trace.splitlines()[-1], facts["kind"], facts["stack"])
    error.add_note(trace)
    return error
