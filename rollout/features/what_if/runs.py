"""Runs of what-ifs: on the replica, and in the process that each has.

Runs of comparisons, each in a process of its own; every replica has their results.

A replica runs the comparisons that were begun on it. The last result of a user is stored as the
response to their request, for seven days, under a key that no client can send.

One comparison in a process of low priority and limited memory; it ends with its parent.

Nothing is written but to its output, so a crash leaves nothing behind.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.data.database.append_failures import StoreError
from rollout.data.database.rollouts import IdempotencyKeys, IdempotentResponse
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import Caller
from rollout.features.what_if.closed_cases import load_what_if_inputs
from rollout.features.what_if.comparison import WhatIfResult, compare_policies
from rollout.features.what_if.requests import WhatIfRequest
from rollout.live.work.user_runs import (
    LONG_LIFETIME,
    ProcessRuns,
    ProcessWork,
    UserRun,
    answer_request,
    build_answer,
    report_step,
)

COMMAND: Final = (sys.executable, "-P", "-m", "rollout.features.what_if.runs")
"""`-P` keeps modules of the working directory out."""
LONGEST_RUN: Final = 6 * 3600.0  # seconds; one that waits uses no processor
BROKEN_TEXT: Final = (
    "it ended without a result: it may need more than 1 GiB of memory or half an hour of a"
    " processor; compare 30 days, or run the command"
)
WhatIfRun = UserRun[WhatIfRequest, WhatIfResult]
STORED_KEY: Final = "what-if\n"
"""Keys of clients are printable, so none is this one."""
STORED_OUTCOME: Final = TypeAdapter(tuple[WhatIfRequest, datetime, WhatIfResult])


class WhatIfRuns(ProcessRuns[WhatIfRequest, WhatIfResult]):
    """The last comparison of each user.

    One that is not done, or that failed, is only on the replica on which it was begun.
    """

    def __init__(self, database: Database, command: Sequence[str] = COMMAND) -> None:
        work = ProcessWork(command, LONGEST_RUN, broken_text=BROKEN_TEXT)
        super().__init__(work, TypeAdapter(WhatIfResult))
        self._database = database

    def compare(self, caller: Caller, request: WhatIfRequest, *, at: datetime) -> WhatIfRun:
        """Start a run, which replaces the user's last one, and return at once.

        Raises:
            RefusalError: the user has one that has not ended.
        """
        values = {
            "database": self._database.engine.url.render_as_string(hide_password=False),
            "caller": to_jsonable_python(caller),
            "request": to_jsonable_python(request),
            "at": at.isoformat(),
        }
        advice = f"`rollout what-if {request.rollout} draft.yaml --days {request.days}`"
        return self.start_process(caller.name, request, values, advice=advice, at=at)

    def find_comparison(self, user: str, rollout: str, *, at: datetime) -> WhatIfRun | None:
        """Return the user's last run on a rollout; None without one in the last seven days."""
        runs = (self.find_run(user, at=at), *self._load(user, at))
        own_runs = [run for run in runs if run is not None and run.subject.rollout == rollout]
        return max(own_runs, key=lambda run: run.started_at, default=None)

    def _load(self, user: str, at: datetime) -> Iterator[WhatIfRun]:
        with self._database.begin_read() as transaction:
            response = IdempotencyKeys(transaction).find(user, STORED_KEY, at=at)
        if response is not None:
            with suppress(ValueError):  # a result of another program, after an upgrade
                request, started_at, result = STORED_OUTCOME.validate_json(response.body)
                run = WhatIfRun(user, request, started_at)
                run.end(result)
                yield run

    def _end(self, run: WhatIfRun) -> None:
        """Store the result, unless the run was cancelled or a later one has one."""
        if run.result is None or run.is_cancelled:
            return
        body = STORED_OUTCOME.dump_json((run.subject, run.started_at, run.result)).decode()
        response = IdempotentResponse(b"", 200, body)
        until = run.started_at + LONG_LIFETIME  # earlier runs have ended before
        with suppress(StoreError), self._database.begin_write() as transaction:  # else only here
            IdempotencyKeys(transaction).store(
                run.user, STORED_KEY, response, at=until, until=until
            )


TIME_LIMIT: Final = 1_800  # seconds of a processor
MEMORY_TEXT: Final = "it needs more than 1 GiB of memory; compare 30 days, or run the command"


def compare_requested(values: dict[str, Any]) -> dict[str, Any]:
    """Return the message that ends a run: its result, or an error."""
    return build_answer(lambda: _compare(values), MEMORY_TEXT)


def _compare(values: dict[str, Any]) -> WhatIfResult:
    caller = TypeAdapter(Caller).validate_python(values["caller"])
    request = TypeAdapter(WhatIfRequest).validate_python(values["request"])
    with closing(Database(values["database"])) as database:
        at = datetime.fromisoformat(values["at"])
        inputs = load_what_if_inputs(database, caller, request, at=at)
        return compare_policies(inputs, report_step)


if __name__ == "__main__":
    answer_request(compare_requested, TIME_LIMIT)
