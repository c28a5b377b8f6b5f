"""How many units a cell sees and how the model fares on them: guessed by a policy, or recorded.

`rollout plan` turns it into days. A guess comes from the policy's `expect`; where that says
nothing of a measure, an assumption stands in and is said to be one. Records replace all of it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.levers import Lever
from rollout.core.policy.measures import MISSING, Condition
from rollout.core.policy.policy import Policy
from rollout.tally.case_placement import place
from rollout.tally.frames import Records
from rollout.tally.unit_arrays import Kinds, Units, gather
from rollout.tally.units import resolve

Key = tuple[str, str | None, str | None]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
_NO_SALT = bytes(32)


@dataclass(frozen=True, slots=True)
class Rate:
    """What one measure sees of a cell's units.

    Attributes:
        share: of the units that it is about; None where nobody said.
        value: share of these in agreement, or their mean cost; None where nobody said.
        assumed: how the value came about where neither policy nor records have it.
        classes: of parity alone: shares of both, lone, split, none.
    """

    share: float | None
    value: float | None
    assumed: str = ""
    classes: tuple[float, ...] = ()


UNKNOWN = Rate(None, None)


@dataclass(frozen=True, slots=True)
class Flow:
    """The traffic of one cell; None where nobody said.

    Attributes:
        units_per_day: units that occur in the cell in a day.
        rates: by measure.
        labels: share of units per label, `label` or `lever/label`.
        wrong_cost: mean cost of a wrong action.
    """

    units_per_day: float | None
    rates: Mapping[Key, Rate]
    labels: Mapping[str, float]
    wrong_cost: float

    def rate(self, condition: Condition) -> Rate:
        """Return what the condition's measure sees."""
        return self.rates.get(condition.key, UNKNOWN)


NO_FLOW = Flow(None, {}, {}, 0.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """The flow of each cell, and where the figures are from."""

    source: str
    flows: Mapping[Cell, Flow]

    def flow(self, cell: Cell) -> Flow:
        """Return a cell's traffic; one that nobody spoke of has an unknown one."""
        return self.flows.get(cell, NO_FLOW)

    @property
    def labels(self) -> dict[str, float]:
        """Return the share of units per label over all cells, each cell by its units."""
        weighted_sums: dict[str, float] = {}
        weights = [
            1.0 if other_traffic.units_per_day is None else other_traffic.units_per_day
            for other_traffic in self.flows.values()
        ]
        for cell_traffic, weight in zip(self.flows.values(), weights, strict=True):
            for label, share in cell_traffic.labels.items():
                weighted_sums[label] = weighted_sums.get(label, 0.0) + weight * share
        return {
            label: weighted_sum / sum(weights)
            for label, weighted_sum in weighted_sums.items()
            if weighted_sum
        }


def conditions_of(policy: Policy) -> tuple[Condition, ...]:
    """Return every condition of the policy's gates and guards, each measure once."""
    gates = (condition for gate in policy.gates for condition in gate.require)
    conditions = (*gates, *(guard.condition for guard in policy.guards))
    return tuple({condition.key: condition for condition in conditions}.values())


def expected_traffic(policy: Policy) -> Traffic:
    """Return what the policy's `expect` says, the same for each of its cells."""
    expectation = policy.expect
    rates = {condition.key: _expected(condition, policy) for condition in conditions_of(policy)}
    cell_traffic = Flow(
        expectation.units_per_day, rates, dict(expectation.labels), wrong_cost(policy)
    )
    return Traffic("the policy's expect", dict.fromkeys(policy.cells, cell_traffic))


def _expected(condition: Condition, policy: Policy) -> Rate:
    match condition.measure:
        case "agreement":
            return Rate(1.0, *_agreement(condition, policy))
        case "recall" | "precision":
            label_share = dict(policy.expect.labels).get(
                _name(condition.lever, str(condition.label))
            )
            assumption = f"{condition.measure} is as high as agreement"
            return Rate(label_share, _agreement(condition, policy)[0], assumption)
        case "cost":
            return _expected_cost(policy)
        case "parity":
            return _expected_parity(policy)
        case _:
            return Rate(1.0, None)


def _agreement(condition: Condition, policy: Policy) -> tuple[float | None, str]:
    """Return the agreement of all levers, or of one, on which its part of the errors falls."""
    agreement = policy.expect.agreement
    if agreement is None or condition.lever is None:
        return agreement, ""
    return 1 - (1 - agreement) / len(policy.levers), "errors are spread evenly over the levers"


def _name(lever: str | None, label: str) -> str:
    return f"{lever}/{label}" if lever else label


def _expected_cost(policy: Policy) -> Rate:
    expectation = policy.expect
    if expectation.cost is not None:
        return Rate(1.0, expectation.cost)
    if expectation.agreement is None:
        return Rate(1.0, None)
    mean_cost = wrong_cost(policy)
    return Rate(
        1.0,
        (1 - expectation.agreement) * mean_cost,
        f"a wrong action costs {mean_cost:.3g} on average",
    )


def _expected_parity(policy: Policy) -> Rate:
    """Three answerers who err alike and apart: two of them agree as often as is expected."""
    second_share = 1.0 if policy.evidence.verdicts > 1 else policy.evidence.second_verdict
    agreement = policy.expect.agreement
    if agreement is None:
        return Rate(second_share, None)
    lone_share = (1 - agreement) / 2
    class_shares = (
        (1 - 3 * lone_share, lone_share, 2 * lone_share, 0.0)
        if agreement > 1 / 3
        else (0.0, 0.0, 0.0, 1.0)
    )
    return Rate(second_share, agreement, "the model errs as often as a person", class_shares)


def wrong_cost(policy: Policy) -> float:
    """Return the mean cost of a wrong action: as expected, else over the rows of the levers."""
    expectation = policy.expect
    if (
        expectation.cost is not None
        and expectation.agreement is not None
        and expectation.agreement < 1
    ):
        return min(expectation.cost / (1 - expectation.agreement), policy.largest_cost)
    mean_costs = [_mean_cost(lever) for lever in policy.levers]
    return sum(mean_costs) / len(mean_costs)


def _mean_cost(lever: Lever) -> float:
    actions = tuple(dict.fromkeys(lever.actions))
    pairs = [
        (action, other_action)
        for action in actions
        for other_action in actions
        if action != other_action
    ]
    costs = [lever.cost(action, other_action) for action, other_action in pairs] or [
        row.cost for row in lever.costs
    ]
    return sum(costs) / len(costs)


def recorded_traffic(records: Records, policy: Policy) -> Traffic:
    """Return what a history shows of each cell, of the version with most units.

    Rates are those of the gate track: a unit without a verdict disagrees. Days are counted from
    the history's first unit to its last, over all cells.
    """
    placed_records = place(records, policy, _NO_SALT).placed
    units = gather(resolve(placed_records, policy).collect(backend="polars").to_native(), policy)
    version = _most_seen(units)
    if version is None:
        return Traffic("the records, in which no unit is evidence", {})
    days = _days(units, policy)
    traffic_by_cell = {
        cell: _recorded(
            np.bincount(rows.gate.kind, minlength=len(units.kinds.kinds)), units.kinds, days
        )
        for (cell, version_name), rows in units.cells.items()
        if version_name == version and cell in policy.known
    }
    return Traffic(f"the records of version {version}, {days:.0f} days", traffic_by_cell)


def _most_seen(units: Units) -> str | None:
    unit_counts: dict[str, int] = {}
    for (_, version), rows in units.cells.items():
        unit_counts[version] = unit_counts.get(version, 0) + len(rows.gate)
    return max(unit_counts, key=lambda version: (unit_counts[version], version), default=None)


def _days(units: Units, policy: Policy) -> float:
    """Return the span of the units' own times in days, at least one."""
    slot_arrays = [rows.gate.occurred for rows in units.cells.values() if len(rows.gate)]
    if not slot_arrays:
        return 1.0
    slot_count = (
        max(int(slot_array.max()) for slot_array in slot_arrays)
        - min(int(slot_array.min()) for slot_array in slot_arrays)
        + 1
    )
    return max(1.0, slot_count * policy.tick.total_seconds() / 86400)


def _recorded(counts: Ints, kinds: Kinds, days: float) -> Flow:
    policy = kinds.policy
    units = int(counts[kinds.whole].sum())
    rates = {
        condition.key: _rate(condition, counts @ kinds.takes(condition), units, policy)
        for condition in conditions_of(policy)
    }
    labels = dict(_labels(counts, kinds))
    return Flow(units / days, rates, labels, _wrong_cost(rates, policy))


def _rate(condition: Condition, taken: Ints, units: int, policy: Policy) -> Rate:
    total = int(taken.sum())
    if not total or condition.measure not in _RATED:
        return Rate(0.0 if units else None, None)
    share = total / units
    if condition.measure == "cost":
        return Rate(share, float(taken @ np.array(policy.cost_levels)) / total)
    if condition.measure == "parity":
        both_share, lone_share, split_share, none_share = (
            float(class_count) / total for class_count in taken
        )
        return Rate(
            share,
            both_share + split_share / 2,
            classes=(both_share, lone_share, split_share, none_share),
        )
    return Rate(share, float(taken[0]) / total)


_RATED = frozenset({"agreement", "recall", "precision", "cost", "parity"})


def _labels(counts: Ints, kinds: Kinds) -> Iterator[tuple[str, float]]:
    """Share of judged units in which people said each label."""
    has_several_levers = len(kinds.policy.levers) > 1
    for lever in kinds.policy.levers:
        decision_counts = [
            (unit_class.decided, int(count))
            for unit_class, count in zip(kinds.kinds, counts, strict=True)
            if unit_class.lever == lever.id and unit_class.decided != MISSING
        ]
        decided_count = sum(count for _, count in decision_counts)
        for label in lever.labels:
            label_count = sum(
                count for decided_label, count in decision_counts if decided_label == label
            )
            yield (
                _name(lever.id if has_several_levers else None, label),
                label_count / decided_count if decided_count else 0.0,
            )


def _wrong_cost(rates: Mapping[Key, Rate], policy: Policy) -> float:
    """Return mean cost over share of disagreement, as recorded."""
    cost = rates.get(("cost", None, None), UNKNOWN).value
    agreement = rates.get(("agreement", None, None), UNKNOWN).value
    if cost is None or agreement is None or agreement >= 1:
        return wrong_cost(policy)
    return min(cost / (1 - agreement), policy.largest_cost)
