"""Units per cell and model performance, as expected by a policy or as recorded.

`rollout plan` converts it to days. The policy's `expect` gives the values; where it is silent, an
assumption is used and marked. Recorded traffic replaces both, and says by month how many units
would have been unfamiliar.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final

import numpy as np

from rollout.engine.evidence.case_placement import place_cases, resolve_natural_units
from rollout.engine.evidence.frames import RecordFrames
from rollout.engine.evidence.gate_series import ValueSeries
from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.engine.evidence.tallied_units import TalliedUnits, build_units
from rollout.engine.evidence.unit_arrays import UnitArrays, UnitClasses
from rollout.engine.evidence.version_uses import drop_undrawn
from rollout.engine.words.formatting import format_percent
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.measures import AGREEMENT, COST, Condition, MeasureKey, Statistic, Subject
from rollout.kernel.policy.cell_evidence import list_floors
from rollout.kernel.policy.familiarity import (
    AttributeValue,
    FamiliarityRule,
    find_line,
    format_value,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.units import MISSING, Lever

Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_ZERO_SALT = bytes(32)


@dataclass(frozen=True, slots=True)
class MeasureRate:
    """The expected records and result of one measure.

    Attributes:
        share: share of units that the measure covers; None if unknown.
        value: their share in agreement, or their mean cost; None if unknown.
        assumption: source of an assumed value, else "".
        slices: of a condition by slice the values in the records; 0 if unknown.
    """

    share: float | None
    value: float | None
    assumption: str = ""
    slices: int = 0


UNKNOWN_RATE = MeasureRate(None, None)


@dataclass(frozen=True, slots=True)
class CellTraffic:
    """The traffic of one cell; None if unknown.

    Attributes:
        units_per_day: units that occur in the cell per day.
        rates: by measure.
        labels: share of units per label, `label` or `lever/label`.
        wrong_cost: mean cost of a wrong action.
        missing_share: share of recorded units without an answer of both sides that may count.
    """

    units_per_day: float | None
    rates: Mapping[MeasureKey, MeasureRate]
    labels: Mapping[str, float]
    wrong_cost: float
    missing_share: float = 0.0

    def get_rate(self, condition: Condition) -> MeasureRate:
        """Return the rate of the condition's measure."""
        return self.rates.get(condition.key, UNKNOWN_RATE)


UNKNOWN_TRAFFIC = CellTraffic(None, {}, {}, 0.0)


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


@dataclass(frozen=True, slots=True)
class RolloutTraffic:
    """The traffic of each cell, and its source; `familiarity` only from records.

    Expected traffic (`is_expected`) is that of a day on which the cell is open. `missing_columns`
    are attributes that the policy names and the records lack, by the policy's section.
    `floor_cells` is `cells` at each confidence floor, of the units that reach it; () without
    several, or expected.
    """

    source: str
    cells: Mapping[Cell, CellTraffic]
    familiarity: FamiliarForecast | None = None
    is_expected: bool = False
    missing_columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    floor_cells: tuple[Mapping[Cell, CellTraffic], ...] = ()

    @property
    def at_floors(self) -> tuple["RolloutTraffic", ...]:
        """Return the traffic at each confidence floor, lowest first; itself without several."""
        return tuple(replace(self, cells=cells) for cells in self.floor_cells) or (self,)

    def get_cell_traffic(self, cell: Cell) -> CellTraffic:
        """Return a cell's traffic; unknown traffic if it has none."""
        return self.cells.get(cell, UNKNOWN_TRAFFIC)

    @property
    def labels(self) -> dict[str, float]:
        """Return the share of units per label over all cells."""
        weighted_sums: dict[str, float] = {}
        weights = [
            1.0 if other_traffic.units_per_day is None else other_traffic.units_per_day
            for other_traffic in self.cells.values()
        ]
        for cell_traffic, weight in zip(self.cells.values(), weights, strict=True):
            for label, share in cell_traffic.labels.items():
                weighted_sums[label] = weighted_sums.get(label, 0.0) + weight * share
        return {
            label: weighted_sum / sum(weights)
            for label, weighted_sum in weighted_sums.items()
            if weighted_sum
        }


def list_conditions(policy: Policy) -> tuple[Condition, ...]:
    """Return the conditions of gates and guards with a rate, one per measure.

    Gains have none, nor has what users plant.
    """
    conditions = [condition for gate in policy.gates for condition in gate.require]
    conditions += [guard.condition for guard in policy.guards]
    return tuple({c.key: c for c in conditions if c.population.sums_units}.values())


def build_expected_traffic(policy: Policy) -> RolloutTraffic:
    """Return the traffic that the policy's `expect` gives every cell."""
    expectation = policy.expect
    rates = {
        condition.key: _build_expected_rate(condition, policy)
        for condition in list_conditions(policy)
    }
    cell_traffic = CellTraffic(
        expectation.units_per_day, rates, dict(expectation.labels), compute_wrong_cost(policy)
    )
    return RolloutTraffic(
        "the policy's expect", dict.fromkeys(policy.cells, cell_traffic), is_expected=True
    )


def _build_expected_rate(condition: Condition, policy: Policy) -> MeasureRate:
    measure = condition.measure
    if not measure.is_rated:
        return MeasureRate(1.0, None)
    if measure.statistic is Statistic.MEAN:
        return _build_expected_cost_rate(policy)
    agreement, assumption = _find_expected_agreement(condition, policy)
    label_share = policy.expect.labels.get(_format_label(condition.lever, condition.label or ""))
    share, rate = measure.expect(agreement, label_share)
    if measure.subject is Subject.LABEL:
        assumption = f"{measure} is as high as agreement"
    if condition.population.attribute:
        assumption = (
            f"each {condition.population.attribute} agrees as all cases do; its share is unknown"
        )
        share = None
    return MeasureRate(share, rate, assumption)


def _find_expected_agreement(condition: Condition, policy: Policy) -> tuple[float | None, str]:
    """Return the agreement of all levers, or one lever's part of the errors."""
    agreement = policy.expect.agreement
    if agreement is None or condition.lever is None:
        return agreement, ""
    return 1 - (1 - agreement) / len(policy.levers), "errors are spread evenly over the levers"


def _format_label(lever: str | None, label: str) -> str:
    return f"{lever}/{label}" if lever else label


def _build_expected_cost_rate(policy: Policy) -> MeasureRate:
    expectation = policy.expect
    if expectation.cost is not None:
        return MeasureRate(1.0, expectation.cost)
    if expectation.agreement is None:
        return MeasureRate(1.0, None)
    mean_cost = compute_wrong_cost(policy)
    return MeasureRate(
        1.0,
        (1 - expectation.agreement) * mean_cost,
        f"a wrong action costs {mean_cost:.3g} on average",
    )


def compute_wrong_cost(policy: Policy) -> float:
    """Return the mean cost of a wrong action: expected, or averaged over levers."""
    expectation = policy.expect
    if (
        expectation.cost is not None
        and expectation.agreement is not None
        and expectation.agreement < 1
    ):
        return min(expectation.cost / (1 - expectation.agreement), policy.largest_cost)
    mean_costs = [_compute_mean_cost(lever) for lever in policy.levers]
    return sum(mean_costs) / len(mean_costs)


def _compute_mean_cost(lever: Lever) -> float:
    actions = tuple(dict.fromkeys(lever.actions))
    pairs = [
        (action, other_action)
        for action in actions
        for other_action in actions
        if action != other_action
    ]
    costs = [lever.compute_cost(action, other_action) for action, other_action in pairs] or [
        row.cost for row in lever.costs
    ]
    return sum(costs) / len(costs)


def compute_recorded_traffic(records: RecordFrames, policy: Policy) -> RolloutTraffic:
    """Return the recorded traffic of each cell, for its version with most units.

    Rates are those of the gate track: a unit without a decision disagrees. A cell without any
    counted decision has no rates. Days are counted from the first unit to the last, over all cells.
    """
    history = place_cases(drop_undrawn(records), policy, _ZERO_SALT)
    units = build_units(resolve_natural_units(history, policy), policy)
    version = _find_main_version(units)
    missing_columns = find_missing_columns(policy, records.attributes)
    if version is None:
        source = "the records, in which no unit is evidence"
        return RolloutTraffic(source, {}, missing_columns=missing_columns)
    days = _compute_days(units, policy)
    has_floors = bool(policy.evidence.higher_floors)
    bands = range(len(list_floors(policy.evidence))) if has_floors else ()
    source = (
        f"the records of version {version}, {days:.0f} days (units without a decision count as"
        " disagreements)"
    )
    familiarity = forecast_familiarity(units, policy, version)
    return RolloutTraffic(
        source,
        _compute_cells(units, policy, version, days),
        familiarity,
        missing_columns=missing_columns,
        floor_cells=tuple(_compute_cells(units, policy, version, days, band) for band in bands),
    )


def _compute_cells(
    units: TalliedUnits, policy: Policy, version: str, days: float, least_band: int = 0
) -> dict[Cell, CellTraffic]:
    """Return the traffic of a version by cell, of units in a confidence band or above."""
    classes = units.unit_classes
    is_reached = classes.bands >= least_band
    return {
        cell: _compute_cell_traffic(
            np.bincount(rows.gate.unit_class, minlength=len(classes.classes)) * is_reached,
            classes,
            days,
        )
        for (cell, version_name), rows in units.cells.items()
        if version_name == version and cell in policy.cell_set
    }


def find_missing_columns(policy: Policy, attributes: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the attributes of `windows` and `slices` that no case has, by section."""
    sections = {
        "windows": [name for window in policy.windows for name in window.when],
        "slices": list(policy.slices),
    }
    missing = {
        section: tuple(name for name in dict.fromkeys(names) if name not in attributes)
        for section, names in sections.items()
    }
    return {section: names for section, names in missing.items() if names}


def _find_main_version(units: TalliedUnits) -> str | None:
    unit_counts: dict[str, int] = {}
    for (_, version), rows in units.cells.items():
        unit_counts[version] = unit_counts.get(version, 0) + len(rows.gate)
    return max(unit_counts, key=lambda version: (unit_counts[version], version), default=None)


def _compute_days(units: TalliedUnits, policy: Policy) -> float:
    """Return the days that the units span, at least one."""
    slot_arrays = [rows.gate.occurred for rows in units.cells.values() if len(rows.gate)]
    if not slot_arrays:
        return 1.0
    slot_count = (
        max(int(slot_array.max()) for slot_array in slot_arrays)
        - min(int(slot_array.min()) for slot_array in slot_arrays)
        + 1
    )
    return max(1.0, slot_count * policy.tick.total_seconds() / 86400)


def _compute_cell_traffic(counts: Ints, unit_classes: UnitClasses, days: float) -> CellTraffic:
    policy = unit_classes.policy
    units = int(counts[unit_classes.is_whole_unit].sum())
    missing = int(counts[unit_classes.is_whole_unit & unit_classes.is_missing].sum())
    if not sum(
        int(count)
        for unit_class, count in zip(unit_classes.classes, counts, strict=True)
        if unit_class.decided != MISSING
    ):
        return CellTraffic(units / days, {}, {}, compute_wrong_cost(unit_classes.policy))
    rates = {
        condition.key: _compute_rarest_rate(condition, counts, unit_classes, units)
        if condition.population.attribute
        else _compute_rate(
            condition, counts @ unit_classes.get_class_counts(condition), units, policy
        )
        for condition in list_conditions(policy)
    }
    labels = dict(_compute_label_shares(counts, unit_classes))
    wrong_cost = _compute_recorded_wrong_cost(rates, policy)
    return CellTraffic(units / days, rates, labels, wrong_cost, missing / max(units, 1))


def _compute_rate(
    condition: Condition, class_counts: Ints, units: int, policy: Policy
) -> MeasureRate:
    total = int(class_counts.sum())
    if not total or not condition.measure.is_rated:
        return MeasureRate(0.0 if units else None, None)
    share = total / units
    if condition.measure.statistic is Statistic.MEAN:
        return MeasureRate(share, float(class_counts @ np.array(policy.cost_levels)) / total)
    return MeasureRate(share, float(class_counts[0]) / total)


def _compute_rarest_rate(
    condition: Condition, counts: Ints, unit_classes: UnitClasses, units: int
) -> MeasureRate:
    """Return the rate of the rarest value, for which the gate waits longest."""
    codes, values = unit_classes.get_slice_codes(condition.population.attribute)
    slices = len(np.unique(codes[(counts > 0) & unit_classes.is_whole_unit]))
    class_counts = unit_classes.get_class_counts(condition) * counts[:, None]
    by_value = [class_counts[codes == code].sum(axis=0) for code in range(len(values))]
    pairs = zip(by_value, values, strict=True)
    counted_values = [(int(row.sum()), value, int(row[0])) for row, value in pairs if any(row)]
    if not counted_values:
        return MeasureRate(0.0 if units else None, None, slices=slices)
    total, value, agreed = min(counted_values)
    share = total / units
    name = f"{condition.population.attribute}={value}"
    text = f"{name} is the rarest value, {share * 100:.3g} % of units"
    return MeasureRate(share, agreed / total, text, slices)


def _compute_label_shares(counts: Ints, unit_classes: UnitClasses) -> Iterator[tuple[str, float]]:
    """Yield the share of decided units per label."""
    has_several_levers = len(unit_classes.policy.levers) > 1
    for lever in unit_classes.policy.levers:
        decision_counts = [
            (unit_class.decided, int(count))
            for unit_class, count in zip(unit_classes.classes, counts, strict=True)
            if unit_class.lever == lever.id and unit_class.decided != MISSING
        ]
        decided_count = sum(count for _, count in decision_counts)
        for label in lever.labels:
            label_count = sum(
                count for decided, count in decision_counts if lever.has_label(decided, label)
            )
            yield (
                _format_label(lever.id if has_several_levers else None, label),
                label_count / decided_count if decided_count else 0.0,
            )


def _compute_recorded_wrong_cost(rates: Mapping[MeasureKey, MeasureRate], policy: Policy) -> float:
    """Return recorded mean cost divided by the share of disagreement."""
    cost = rates.get((COST.name, None, None), UNKNOWN_RATE).value
    agreement = rates.get((AGREEMENT.name, None, None), UNKNOWN_RATE).value
    if cost is None or agreement is None or agreement >= 1:
        return compute_wrong_cost(policy)
    return min(cost / (1 - agreement), policy.largest_cost)


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
            for value in frozenset().union(*units.unit_classes.values_by_class[unit_class][:1]):
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
