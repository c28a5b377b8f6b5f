"""How many units of a running rollout would have been unfamiliar, before its policy changes."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from rollout.data.counting.closed_units import PeriodRecords
from rollout.data.database.session import Transaction
from rollout.data.records.history import StoredHistory
from rollout.engine.evidence.case_placement import place_cases, resolve_natural_units
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.words.formatting import format_count, format_percent
from rollout.features.policies.traffic import forecast_familiarity
from rollout.kernel.policy.familiarity import FamiliarityRule
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState

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
    history = place_cases(
        store.load_records(case_ids), policy, state.rollout.salt, state.trained_until
    )
    return build_units(resolve_natural_units(history, policy), policy)


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
