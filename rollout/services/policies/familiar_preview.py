"""How many of the last month's cases a policy's familiar cases would send to humans."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from rollout.core.policy.familiarity import FamiliarityRule
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import format_count, format_percent
from rollout.services.engine.reviewer_checks import compute_reviewer_checks
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.policies.familiar_plan import forecast_familiarity
from rollout.store.counting.period_records import PeriodRecords
from rollout.store.database.session import Transaction
from rollout.store.records.history import StoredHistory
from rollout.tally.case_placement import place_cases
from rollout.tally.unit_arrays import TalliedUnits, build_units
from rollout.tally.unit_values import add_unit_values
from rollout.tally.units import resolve_units

PREVIEW_DAYS: Final = 30
MAX_PREVIEWED_CASES: Final = 20_000
"""The newest cases that a preview reads, in about 3 s; it blocks the request."""


def describe_unfamiliar_effect(
    transaction: Transaction, state: RolloutState, policy: Policy, at: datetime
) -> tuple[str, ...]:
    """Return a sentence for each version: its recent units that would go to humans.

    Nothing if the policy's rule of familiar cases is the one in force, or there is none. No value
    counts as familiar at the beginning, as when the rule is added.
    """
    rule = policy.evidence.familiar
    if rule is None or rule == state.policy.evidence.familiar:
        return ()
    case_ids = PeriodRecords(transaction, state.rollout).list_cases(
        at - timedelta(days=PREVIEW_DAYS), at
    )
    if not case_ids:
        return (f"unknown, because the last {PREVIEW_DAYS} days have no case",)
    period = f"in the last {PREVIEW_DAYS} days"
    if len(case_ids) > MAX_PREVIEWED_CASES:
        case_ids = set(sorted(case_ids)[-MAX_PREVIEWED_CASES:])
        period = f"in the newest {format_count(MAX_PREVIEWED_CASES)} cases of {PREVIEW_DAYS} days"
    units = _tally_units(transaction, state, policy, rule, case_ids)
    return tuple(_describe_versions(units, state, policy, period))


def _tally_units(
    transaction: Transaction,
    state: RolloutState,
    policy: Policy,
    rule: FamiliarityRule,
    case_ids: set[int],
) -> TalliedUnits:
    """Return the units of some cases, as the policy would count them."""
    window_attributes = {attribute for window in policy.windows for attribute in window.when}
    store = StoredHistory(
        transaction,
        state.rollout,
        levers=[lever.id for lever in policy.levers],
        attributes=sorted(window_attributes | {*policy.slices} | rule.attribute_names),
        first_names=state.first_names,
    )
    if policy.evidence.unit == "episode":
        case_ids = set(store.add_episode_cases(case_ids))
    reviewer_checks = compute_reviewer_checks(transaction, replace(state, policy=policy))
    records = replace(store.load_records(case_ids), reliability=reviewer_checks)
    history = place_cases(records, policy, state.rollout.salt, state.trained_until)
    frame = resolve_units(history.placed, policy).collect(backend="polars").to_native()
    return build_units(add_unit_values(frame, history.cases, policy), policy)


def _describe_versions(
    units: TalliedUnits, state: RolloutState, policy: Policy, period: str
) -> Iterator[str]:
    for version in state.scope.versions.values():
        forecast = None if version.retired else forecast_familiarity(units, policy, version.id)
        total = 0 if forecast is None else sum(month[1] for month in forecast.months)
        if forecast is None or not total:
            continue
        unfamiliar = sum(month[2] for month in forecast.months)
        yield (
            f"{format_count(unfamiliar)} of {format_count(total)} units of {version.id} {period}"
            f" ({format_percent(unfamiliar / total)})"
        )
