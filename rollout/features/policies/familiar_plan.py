"""How many recorded units would have been unfamiliar, by month, for `rollout plan`."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from rollout.data.counting.period_records import PeriodRecords
from rollout.data.database.session import Transaction
from rollout.data.records.history import StoredHistory
from rollout.engine.evidence.case_placement import place_cases
from rollout.engine.evidence.gate_series import ValueSeries
from rollout.engine.evidence.populations import resolve_natural_units
from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.engine.words.formatting import format_count, format_percent
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.policy.familiarity import (
    AttributeValue,
    FamiliarityRule,
    find_line,
    format_value,
)
from rollout.kernel.policy.policy import Policy
from rollout.live.rollout_state import RolloutState

MAX_VALUES_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class FamiliarForecast:
    """Recorded units under the rule, had every cell been in shadow.

    Attributes:
        version: whose units they are.
        months: month as 2025-10, its units, and those of them that were not familiar.
        first_days: each value in words with its first day, newest first.
    """

    version: str
    months: tuple[tuple[str, int, int], ...]
    first_days: tuple[tuple[str, date], ...]


def forecast_familiarity(
    units: TalliedUnits, policy: Policy, version: str
) -> FamiliarForecast | None:
    """Return how many units of a version would have been unfamiliar; None without the rule."""
    rule = policy.evidence.familiar
    if rule is None:
        return None
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    first_days: dict[AttributeValue, int] = {}
    for (cell, name), rows in units.cells.items():
        if name != version or cell not in policy.cell_set:
            continue
        history = _simulate_history(rows.guard, units.unit_classes, policy, cell, rule)
        gate = rows.gate.select(units.unit_classes.is_whole_unit[rows.gate.unit_class])
        is_familiar = find_familiar_units(gate, units.unit_classes, history)
        for day, unit_class, familiar in zip(
            gate.day.tolist(), gate.unit_class.tolist(), is_familiar.tolist(), strict=True
        ):
            month = counts[f"{date.fromordinal(day):%Y-%m}"]
            month[0] += 1
            month[1] += not familiar
            for value in units.unit_classes.values_by_class[unit_class][0]:
                first_days[value] = min(day, first_days.get(value, day))
    return FamiliarForecast(
        version,
        tuple((month, *counts[month]) for month in sorted(counts)),  # type: ignore[misc]
        tuple(
            (format_value(value), date.fromordinal(day))
            for value, day in sorted(first_days.items(), key=lambda item: (-item[1], item[0]))
        ),
    )


def _simulate_history(
    rows: UnitArrays, unit_classes: UnitClasses, policy: Policy, cell: Cell, rule: FamiliarityRule
) -> FamiliarHistory:
    """Return what ticks would have recorded in shadow, where every unit is judged."""
    rows = rows.select(unit_classes.is_whole_unit[rows.unit_class])
    rows = rows.select(~unit_classes.is_missing[rows.unit_class])
    line = find_line(rule, (guard.condition for guard in policy.list_guards(cell)))
    series, history = ValueSeries(rows, unit_classes, rule, line), FamiliarHistory()
    slot: int | None = int(rows.slot[0]) if len(rows) else None
    while slot is not None:
        slot = series.find_next_change(slot, history.statuses, frozenset(), is_acting=False)
        if slot is not None:
            readings = series.read_at(slot)
            history = history.extend(slot, {v: reading.status for v, reading in readings.items()})
    return history


def format_familiarity(policy: Policy, forecast: FamiliarForecast | None) -> Iterator[str]:
    """Yield the lines of a plan about unfamiliar cases; none without the rule."""
    rule = policy.evidence.familiar
    if rule is None:
        return
    names = ", ".join(attribute.id for attribute in rule.attributes)
    yield f"FAMILIAR CASES: humans decide a case unless a version met its values of {names}"
    yield f"  each at least {rule.at_least} times in the cell, and agreed often enough. Unfamiliar:"
    if forecast is None:
        yield "  how many that would be: add --predictions and --decisions"
        yield ""
        return
    for month, units, unfamiliar in forecast.months:
        share = format_percent(unfamiliar / units)
        yield f"  {month}: {unfamiliar:,} of {units:,} units ({share}) of {forecast.version}"
    for text, day in forecast.first_days[:MAX_VALUES_SHOWN]:
        yield f"  {text}: first on {day}"
    if more := forecast.first_days[MAX_VALUES_SHOWN:]:
        yield f"  and {len(more):,} more values, first on {more[-1][1]} to {more[0][1]}"
    yield ""


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
