"""Count units with the value of an outcome, each when its deadline passes.

Cases are queued for their deadline when a record of theirs is stored. The tick resolves the units
of due cases by the rule that replay uses, and stores each once.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rollout.core.statistics.sampling import compute_sampling_values
from rollout.kernel.outcomes import OutcomeRule
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.engine.unit_counting import (
    add_unit_cases,
    find_cases_beside,
    load_uses,
    open_stored_history,
)
from rollout.store.counting.count_queue import CountQueue, DueCase
from rollout.store.counting.counted_outcomes import CountedOutcomes, load_drawn
from rollout.store.counting.unit_records import OutcomeRecords, UnitRecords
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CASE, EPISODE, ExternalKeys
from rollout.store.tables.counting_tables import OUTCOME
from rollout.tally.case_placement import place_cases
from rollout.tally.outcome_buffer import CountedOutcome
from rollout.tally.outcome_resolution import resolve_outcome_units
from rollout.tally.slots import to_instant
from rollout.tally.unit_arrays import IntArray

BucketFinder = Callable[[IntArray, NDArray[np.float64]], IntArray]
UnitNumbers = Callable[[Collection[str]], Mapping[str, int]]


def count_outcomes(
    transaction: Transaction,
    state: RolloutState,
    slot: int,
    case_ids: Collection[int],
    find_buckets: BucketFinder,
) -> None:
    """Count the due units of cases; queue those whose deadline is later than it was."""
    records = OutcomeRecords(state.first_names)

    def _assign_units(keys: Collection[str]) -> Mapping[str, int]:
        return open_unit_keys(transaction, state).assign_ids(keys, lock=False).by_key

    finders = (find_buckets, _assign_units)
    pending: set[DueCase] = set()
    due_lines: list[CountedOutcome] = []
    for line in resolve_outcome_lines(transaction, state, case_ids, records, *finders):
        if line.slot > slot:
            pending.add(DueCase(to_instant(line.slot, state.policy.tick), line.case_id, OUTCOME))
        else:
            due_lines.append(line)
    CountedOutcomes(transaction, state.rollout).store(due_lines)
    CountQueue(transaction, state.rollout).add(pending)


def resolve_outcome_lines(
    transaction: Transaction,
    state: RolloutState,
    case_ids: Collection[int],
    records: UnitRecords,
    find_buckets: BucketFinder,
    find_unit_ids: UnitNumbers,
) -> Iterator[CountedOutcome]:
    """Yield the units of some cases and their episodes, for each outcome of the policy.

    Units without a number are left out.
    """
    policy = state.policy
    history = open_stored_history(transaction, state, records.add_rows)
    all_case_ids = add_unit_cases(history, policy, case_ids)
    frames = history.load_records(all_case_ids)
    placement = place_cases(frames, policy, state.rollout.salt, state.trained_until)
    placement = replace(placement, uses=load_uses(transaction, state))
    if policy.evidence.unit != "case":
        records.cases_beside = find_cases_beside(transaction, state, [placement.cases])
    drawn = load_drawn(transaction, state.rollout, all_case_ids, records)
    for outcome in policy.outcomes:
        units = resolve_outcome_units(frames, placement, policy, outcome)
        if units.height:
            rows = _add_buckets(units, state, find_buckets).to_dicts()
            unit_ids = find_unit_ids({row["unit"] for row in rows})
            known_rows = [row for row in rows if row["unit"] in unit_ids]
            numbers = ExternalKeys(transaction, state.rollout, CASE).find_ids(
                {row["case_key"] for row in known_rows}
            )
            yield from _build_lines(outcome, known_rows, numbers, unit_ids, drawn, records)


def _add_buckets(
    units: pl.DataFrame, state: RolloutState, find_buckets: BucketFinder
) -> pl.DataFrame:
    values = compute_sampling_values(state.rollout.salt, "stage", units["unit"].to_list())
    buckets = find_buckets(units["occurred"].to_numpy(), values)
    return units.with_columns(bucket=pl.Series(buckets, dtype=pl.Int64))


def _build_lines(
    outcome: OutcomeRule,
    rows: Iterable[Mapping[str, Any]],
    case_ids: Mapping[str, int],
    unit_ids: Mapping[str, int],
    drawn: Mapping[tuple[int, str], str],
    records: UnitRecords,
) -> Iterator[CountedOutcome]:
    copied = (
        *("version", "slot", "occurred", "site", "window", "bucket", "score", "known_share"),
        *("sources", "source_fault"),
    )
    for row in rows:
        case_id = case_ids[row["case_key"]]
        yield CountedOutcome(
            unit=unit_ids[row["unit"]],
            outcome=outcome.id,
            case_id=case_id,
            definition=outcome.definition,
            drawn=drawn.get((case_id, row["version"])),
            record_hashes=records.join_hashes(case_id, row["version"]),
            **{name: row[name] for name in copied},
        )


def open_unit_keys(transaction: Transaction, state: RolloutState) -> ExternalKeys:
    """Return the keys of units under the policy in force."""
    kind = CASE if state.policy.evidence.unit == "case" else EPISODE
    return ExternalKeys(transaction, state.rollout, kind)
