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
        sums: dict[str, float] = {}
        weights = [1.0 if f.units_per_day is None else f.units_per_day for f in self.flows.values()]
        for flow, weight in zip(self.flows.values(), weights, strict=True):
            for label, share in flow.labels.items():
                sums[label] = sums.get(label, 0.0) + weight * share
        return {label: total / sum(weights) for label, total in sums.items() if total}


def conditions_of(policy: Policy) -> tuple[Condition, ...]:
    """Return every condition of the policy's gates and guards, each measure once."""
    gates = (condition for gate in policy.gates for condition in gate.require)
    found = (*gates, *(guard.condition for guard in policy.guards))
    return tuple({condition.key: condition for condition in found}.values())


def expected_traffic(policy: Policy) -> Traffic:
    """Return what the policy's `expect` says, the same for each of its cells."""
    expect = policy.expect
    rates = {c.key: _expected(c, policy) for c in conditions_of(policy)}
    flow = Flow(expect.units_per_day, rates, dict(expect.labels), wrong_cost(policy))
    return Traffic("the policy's expect", dict.fromkeys(policy.cells, flow))


def _expected(condition: Condition, policy: Policy) -> Rate:
    match condition.measure:
        case "agreement":
            return Rate(1.0, *_agreement(condition, policy))
        case "recall" | "precision":
            of_label = dict(policy.expect.labels).get(_name(condition.lever, str(condition.label)))
            assumed = f"{condition.measure} is as high as agreement"
            return Rate(of_label, _agreement(condition, policy)[0], assumed)
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
    expect = policy.expect
    if expect.cost is not None:
        return Rate(1.0, expect.cost)
    if expect.agreement is None:
        return Rate(1.0, None)
    mean = wrong_cost(policy)
    return Rate(1.0, (1 - expect.agreement) * mean, f"a wrong action costs {mean:.3g} on average")


def _expected_parity(policy: Policy) -> Rate:
    """Three answerers who err alike and apart: two of them agree as often as is expected."""
    twice = 1.0 if policy.evidence.verdicts > 1 else policy.evidence.second_verdict
    agreement = policy.expect.agreement
    if agreement is None:
        return Rate(twice, None)
    lone = (1 - agreement) / 2
    classes = (1 - 3 * lone, lone, 2 * lone, 0.0) if agreement > 1 / 3 else (0.0, 0.0, 0.0, 1.0)
    return Rate(twice, agreement, "the model errs as often as a person", classes)


def wrong_cost(policy: Policy) -> float:
    """Return the mean cost of a wrong action: as expected, else over the rows of the levers."""
    expect = policy.expect
    if expect.cost is not None and expect.agreement is not None and expect.agreement < 1:
        return min(expect.cost / (1 - expect.agreement), policy.largest_cost)
    means = [_mean_cost(lever) for lever in policy.levers]
    return sum(means) / len(means)


def _mean_cost(lever: Lever) -> float:
    actions = tuple(dict.fromkeys(lever.actions))
    pairs = [(did, right) for did in actions for right in actions if did != right]
    costs = [lever.cost(did, right) for did, right in pairs] or [row.cost for row in lever.costs]
    return sum(costs) / len(costs)


def recorded_traffic(records: Records, policy: Policy) -> Traffic:
    """Return what a history shows of each cell, of the version with most units.

    Rates are those of the gate track: a unit without a verdict disagrees. Days are counted from
    the history's first unit to its last, over all cells.
    """
    placed = place(records, policy, _NO_SALT).placed
    units = gather(resolve(placed, policy).collect(backend="polars").to_native(), policy)
    version = _most_seen(units)
    if version is None:
        return Traffic("the records, in which no unit is evidence", {})
    days = _days(units, policy)
    flows = {
        cell: _recorded(
            np.bincount(rows.gate.kind, minlength=len(units.kinds.kinds)), units.kinds, days
        )
        for (cell, name), rows in units.cells.items()
        if name == version and cell in policy.known
    }
    return Traffic(f"the records of version {version}, {days:.0f} days", flows)


def _most_seen(units: Units) -> str | None:
    seen: dict[str, int] = {}
    for (_, version), rows in units.cells.items():
        seen[version] = seen.get(version, 0) + len(rows.gate)
    return max(seen, key=lambda version: (seen[version], version), default=None)


def _days(units: Units, policy: Policy) -> float:
    """Return the span of the units' own times in days, at least one."""
    slots = [rows.gate.occurred for rows in units.cells.values() if len(rows.gate)]
    if not slots:
        return 1.0
    span = max(int(s.max()) for s in slots) - min(int(s.min()) for s in slots) + 1
    return max(1.0, span * policy.tick.total_seconds() / 86400)


def _recorded(counts: Ints, kinds: Kinds, days: float) -> Flow:
    policy = kinds.policy
    units = int(counts[kinds.whole].sum())
    rates = {c.key: _rate(c, counts @ kinds.takes(c), units, policy) for c in conditions_of(policy)}
    labels = dict(_labels(counts, kinds))
    return Flow(units / days, rates, labels, _wrong_cost(rates, policy))


def _rate(condition: Condition, taken: Ints, units: int, policy: Policy) -> Rate:
    of = int(taken.sum())
    if not of or condition.measure not in _RATED:
        return Rate(0.0 if units else None, None)
    share = of / units
    if condition.measure == "cost":
        return Rate(share, float(taken @ np.array(policy.cost_levels)) / of)
    if condition.measure == "parity":
        both, lone, split, none = (float(n) / of for n in taken)
        return Rate(share, both + split / 2, classes=(both, lone, split, none))
    return Rate(share, float(taken[0]) / of)


_RATED = frozenset({"agreement", "recall", "precision", "cost", "parity"})


def _labels(counts: Ints, kinds: Kinds) -> Iterator[tuple[str, float]]:
    """Share of judged units in which people said each label."""
    several = len(kinds.policy.levers) > 1
    for lever in kinds.policy.levers:
        said = [
            (kind.decided, int(n))
            for kind, n in zip(kinds.kinds, counts, strict=True)
            if kind.lever == lever.id and kind.decided != MISSING
        ]
        judged = sum(n for _, n in said)
        for label in lever.labels:
            of_label = sum(n for decided, n in said if decided == label)
            yield _name(lever.id if several else None, label), of_label / judged if judged else 0.0


def _wrong_cost(rates: Mapping[Key, Rate], policy: Policy) -> float:
    """Return mean cost over share of disagreement, as recorded."""
    cost = rates.get(("cost", None, None), UNKNOWN).value
    agreement = rates.get(("agreement", None, None), UNKNOWN).value
    if cost is None or agreement is None or agreement >= 1:
        return wrong_cost(policy)
    return min(cost / (1 - agreement), policy.largest_cost)
