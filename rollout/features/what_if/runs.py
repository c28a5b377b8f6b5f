"""Requests of what-ifs, and their runs over closed cases: on the replica, in the process of each.

Whoever may be asked for blind reviews gets no comparison: a draft can be cut to single out a case.

Nobody may still be asked about a closed case, so the rollout's own salt may draw it again. A
replica runs the comparisons that were begun on it, each in a process of low priority and limited
memory, which ends with its parent and writes nothing but its output. The last result of a user is
stored as the response to their request, for seven days, under a key that no client can send.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

from rollout.data.access.idempotency_keys import IdempotencyKeys, IdempotentResponse
from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.append_failures import StoreError
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Database, Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, RecordFrames
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.reports.stored_inputs import (
    ReportPeriod,
    list_policy_attributes,
    load_report_inputs,
)
from rollout.features.what_if.comparison import WhatIfInputs, WhatIfResult, compare_policies
from rollout.features.what_if.replayed_policy import WhatIfRecords, check_comparable
from rollout.kernel.calendar.instants import find_slot_before, to_instant, to_micros
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import RolloutState, read_rollout
from rollout.live.work.user_runs import (
    LONG_LIFETIME,
    ProcessRuns,
    ProcessWork,
    UserRun,
    answer_request,
    build_answer,
    report_step,
)

SPANS: Final = (30, 90)  # days


@dataclass(frozen=True, slots=True)
class WhatIfRequest:
    """A draft of a rollout's policy, and the number of recorded days it is compared over."""

    rollout: str
    draft_text: str
    days: int = SPANS[0]


def check_request(caller: Caller, state: RolloutState, request: WhatIfRequest) -> Policy:
    """Return the draft of a request that can be run.

    Raises:
        NotAllowedError: the caller may not read every site of the rollout.
        InvalidPolicyError: the draft is not valid.
        RefusalError: the span or the draft is not one that can be compared, or the caller may be
            asked for blind reviews.
    """
    require_permission(caller, Permission.READ, request.rollout, tuple(state.policy.sites_by_id))
    if request.days not in SPANS:
        days = " or ".join(map(str, SPANS))
        raise RefusalError(f"{request.days} days are no span of a comparison; write {days}")
    draft = parse_policy(request.draft_text)
    if draft.rollout != request.rollout:
        raise RefusalError(
            f"the draft is of {draft.rollout}, not of {request.rollout}; write its name in it"
        )
    if may_be_asked_blind(caller, request.rollout, ()):
        raise RefusalError(
            "because you may be asked for blind reviews here, a draft of yours could single out a"
            " case; let a user without reviews run it"
        )
    check_comparable(state.policy, draft)
    return draft


def load_what_if_inputs(
    database: Database, caller: Caller, request: WhatIfRequest, *, at: datetime
) -> WhatIfInputs:
    """Return the closed cases of the last days with both policies.

    Raises:
        NoSuchRolloutError: there is no such rollout.
        NotAllowedError: the caller may not read every site of it.
        InvalidPolicyError: the draft is not valid.
        RefusalError: the request can't be run, or no case of the span is closed.
    """
    with read_rollout(database, request.rollout) as (transaction, state):
        draft = check_request(caller, state, request)
        until = to_instant(find_slot_before(at, state.policy.tick), state.policy.tick)
        period = ReportPeriod(until - timedelta(days=request.days), until, at)
        inputs = load_report_inputs(transaction, state, period)
        closed = _list_closed_cases(inputs)
        if not len(closed):
            raise RefusalError(
                f"no case of the last {request.days} days is closed; try a longer span, or let"
                " cases close first"
            )
        records = _select_closed(transaction, state, inputs, closed)
        unplaced = PeriodRecords(transaction, state.rollout).load_unplaced(period.since, until)
        text = PolicyTexts(transaction, state.rollout).load_texts({state.scope.policy_hash})
    return WhatIfInputs(
        current_text=text[state.scope.policy_hash],
        draft_text=request.draft_text,
        records=WhatIfRecords(
            _add_attributes(records, draft),
            state.trained_until,
            _compute_shares(inputs).filter(pl.col("case_key").is_in(closed.implode())),
            unplaced,
        ),
        salt=state.rollout.salt,
        audit_salt=state.rollout.service_salt,
        since=period.since,
        until=period.until,
        revision=state.scope.revision,
        open_cases=inputs.records.cases.height - len(closed) + inputs.withheld_count,
    )


def _list_closed_cases(inputs: ReportInputs) -> pl.Series:
    """Return the keys of cases whose unit is counted, or that closed without one."""
    cases = _filter_by_grace(inputs.records.cases, inputs)
    units = inputs.cases.select("case_key", "unit", "site", "window").unique("case_key")
    placed = cases.select("case_key").join(units, on="case_key", how="left")
    pending = inputs.pending_units["unit"] if inputs.pending_units.height else pl.Series([""])
    is_open = pl.col("unit").is_in(pending.implode()).fill_null(value=False)
    return placed.filter(~is_open)["case_key"]


def _filter_by_grace(cases: pl.DataFrame, inputs: ReportInputs) -> pl.DataFrame:
    """Return the cases whose grace had passed at the last tick."""
    closed_until = (inputs.counted_until or inputs.last) - inputs.policy.evidence.grace
    known_at = pl.max_horizontal("occurred_at", "received_at").dt.timestamp("us")
    return cases.filter(known_at <= to_micros(closed_until))


def _select_closed(
    transaction: Transaction, state: RolloutState, inputs: ReportInputs, closed: pl.Series
) -> RecordFrames:
    """Return the records of closed cases, and of closed planted ones."""
    planted = inputs.records.planted
    if planted is not None:
        at = inputs.made_at or inputs.last
        blind = PeriodRecords(transaction, state.rollout).list_blind_cases(at)
        keys = ExternalKeys(transaction, state.rollout).find_keys(blind).values()
        ended = _filter_by_grace(planted.cases, inputs)["case_key"]
        planted = planted.select_cases(ended.filter(~ended.is_in(list(keys))))
    return replace(inputs.records.select_cases(closed), planted=planted)


def _add_attributes(records: RecordFrames, draft: Policy) -> RecordFrames:
    """Return the records with empty columns for attributes that only the draft names."""
    missing = sorted(list_policy_attributes(draft) - set(records.attributes))
    columns = [pl.lit(None, pl.String).alias(ATTRIBUTE_PREFIX + name) for name in missing]
    return replace(records, cases=records.cases.with_columns(columns))


def _compute_shares(inputs: ReportInputs) -> pl.DataFrame:
    """Return which share of cases like each was to be decided blind: case_key, share."""
    decided = inputs.decided_cases
    if not decided.height:
        return WhatIfRecords(inputs.records).shares
    share = pl.when(pl.col("unfamiliar").is_null()).then("reviewed_share").otherwise(1.0)
    return decided.select("case_key", share=share)


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
        super().__init__(work, WhatIfResult)
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
