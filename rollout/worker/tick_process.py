"""The process of ticks: it runs the passes that its parent requests, and ends with it.

`tick_worker` is the other side. The first line of the input has the database and the name in
claims, each later one a pass, or the instant of a check of evidence. Each line of the output is a
message: what the parent has to know at once of failed writes and damage, its log, and at the end of
a pass what came of it.
"""

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

from rollout.data.database.append_failures import (
    AppendFailures,
    DamageSigns,
    DatabaseUnavailableError,
)
from rollout.data.database.session import Database
from rollout.kernel.calendar.instants import from_micros, to_micros
from rollout.live.clock import SystemClock
from rollout.live.tick_passes import TickScheduler
from rollout.live.work.user_runs import list_frames

OOM_SCORE: Final = "500"
"""Where memory runs out, this process ends before the one that answers."""
NICENESS: Final = 10
"""Of a check; a tick has the usual priority."""
OUTAGE_LOG: Final = "rollout.database"
"""The parent meets each outage itself and logs it once."""
Message = dict[str, Any]


class MessageWriter:
    """Writes messages to the output, one a line, from any thread."""

    def __init__(self) -> None:
        self._lock = Lock()

    def send(self, **message: Any) -> None:
        """Write a message at once."""
        with self._lock:
            sys.stdout.write(json.dumps(message) + "\n")
            sys.stdout.flush()


class SentFailures(AppendFailures):
    """Failed appends that the parent learns of when they fail, or succeed again."""

    def __init__(self, writer: MessageWriter) -> None:
        super().__init__()
        self._writer = writer

    def record_failure(self, rollout_name: str, kind: str, reason: str, rows: int = 0) -> None:
        """Record a failed append here and in the parent."""
        super().record_failure(rollout_name, kind, reason, rows)
        self._writer.send(failed=[rollout_name, kind, reason, rows])

    def record_success(self, rollout_name: str, kind: str, rows: int | None = None) -> None:
        """Forget a failure here and in the parent, which may have one of a former process."""
        super().record_success(rollout_name, kind, rows)
        self._writer.send(succeeded=[rollout_name, kind, rows])


class SentDamage(DamageSigns):
    """Signs of damage that the parent learns of when they are met."""

    def __init__(self, writer: MessageWriter) -> None:
        self._writer = writer
        super().__init__()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "text" and value:
            self._writer.send(damaged=value)


class SentLog(logging.Handler):
    """Sends what is logged here to the parent's log."""

    def __init__(self, writer: MessageWriter) -> None:
        super().__init__(logging.INFO)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record; texts of exceptions, which may hold names, only with its traceback."""
        if record.name == OUTAGE_LOG:
            return
        if isinstance(record.args, tuple):
            values = (type(a).__name__ if isinstance(a, Exception) else a for a in record.args)
            record.args = tuple(values)
        error = record.exc_info[1] if record.exc_info else None
        failure = _describe_error(error) if error is not None else None
        self._writer.send(log=[record.name, record.levelno, record.getMessage(), failure])


def main() -> None:
    """Run passes until the input ends."""
    settings = json.loads(sys.stdin.readline() or sys.exit(1))
    with suppress(OSError):  # where there is none
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    writer = MessageWriter()
    logging.basicConfig(level=logging.INFO, handlers=[SentLog(writer)])
    database = Database(settings["database"], gives_way=True)
    database.append_failures, database.damage_signs = SentFailures(writer), SentDamage(writer)
    scheduler = TickScheduler(
        database, settings["owner"], announce=lambda name: writer.send(begun=name)
    )
    gc.freeze()  # what was imported is not scanned for garbage
    for request in read_requests():
        writer.send(**answer_request(scheduler, request))


def read_requests() -> Iterator[Message]:
    """Yield the requests; the end of the input ends the process, whatever it does then."""
    requests: SimpleQueue[Message] = SimpleQueue()

    def read_input() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        os._exit(0)

    Thread(target=read_input, daemon=True).start()
    while True:
        yield requests.get()


def answer_request(scheduler: TickScheduler, request: Message) -> Message:
    """Run the due ticks or a check; return the message that ends it."""
    try:
        if "check" in request:
            os.nice(NICENESS)  # it is all that this process does
            return {"differing": scheduler.sample_evidence(from_micros(request["check"]))}
        result = scheduler.run_due_ticks(
            from_micros(request["at"]),
            narrow_only=request["narrow_only"],
            get_time=SystemClock().now if request["reads_clock"] else None,
        )
    except DatabaseUnavailableError as error:
        return {"unavailable": str(error)}
    return {
        "done": {
            "seconds": dict(result.seconds_by_rollout),
            "errors": {name: _describe_error(error) for name, error in result.errors.items()},
            "next": {name: to_micros(at) for name, at in scheduler.next_due.items()},
        }
    }


def _describe_error(error: BaseException) -> Message:
    """Return what `ProcessFailedError` is built of, and its traceback."""
    text = "".join(traceback.format_exception(error))
    return {"kind": type(error).__name__, "stack": list_frames(error), "trace": text}


if __name__ == "__main__":
    main()
