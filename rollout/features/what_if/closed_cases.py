"""The closed cases of a rollout, as a draft is compared on them.

Nobody may still be asked about a closed case, so the rollout's own salt may draw it again.
"""

from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.rollouts import PolicyTexts
from rollout.data.database.session import Database, Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.engine.decide.permissions import Caller
from rollout.engine.evidence.frames import ATTRIBUTE_PREFIX, RecordFrames
from rollout.features.reports.inputs.inputs import ReportInputs, assign_deciders
from rollout.features.reports.stored_inputs import (
    ReportPeriod,
    list_policy_attributes,
    load_report_inputs,
)
from rollout.features.what_if.comparison import WhatIfInputs
from rollout.features.what_if.replayed_policy import WhatIfRecords
from rollout.features.what_if.requests import WhatIfRequest, check_request
from rollout.kernel.calendar.instants import find_slot_before, to_instant, to_micros
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState, read_rollout


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
    decided = assign_deciders(inputs)
    if not decided.height:
        return WhatIfRecords(inputs.records).shares
    is_familiar = pl.col("unfamiliar").is_null()
    share = pl.when(is_familiar).then("reviewed_share").otherwise(1.0)
    return decided.select("case_key", share=share)
