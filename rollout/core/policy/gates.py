"""What a gate reads: each condition against its line, and what is missing beside evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import Counted
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Gate, Policy
from rollout.core.statistics.evidence import log_e_cost, log_e_parity, log_e_value, lower_bound
from rollout.core.statistics.gate_thresholds import gate_line

BY_E_VALUE = frozenset({"cost", "parity"})  # they have no integer line


@dataclass(frozen=True, slots=True)
class Reading:
    """One condition of a gate, weighed at one risk."""

    condition: Condition
    counts: tuple[int, ...]
    risk: float
    met: bool
    turned: bool

    def log_e(self, policy: Policy) -> float:
        """Return the natural logarithm of the e-value; 0 without records."""
        return log_e(self.condition, self.counts, policy)

    def text(self, policy: Policy) -> str:
        """Return the reading in one line, as the ledger keeps it.

        `agreement at least 95 %: 245 of 248, log E 4.271300 of 2.995732 (risk 0.05)`
        """
        e_value_text = f"{self.log_e(policy):.6f} of {log(1 / self.risk):.6f}"
        return (
            f"{self.condition}: {counts_text(self.counts)}, log E {e_value_text} (risk"
            f" {self.risk:g})"
        )


def counts_text(counts: tuple[int, ...]) -> str:
    """Say a share's counts as `successes of records`, others as they stand."""
    if len(counts) == 2:
        return f"{counts[0]} of {sum(counts)}"
    return " ".join(str(count) for count in counts)


@dataclass(frozen=True, slots=True)
class GateReading:
    """A gate read for one cell and version.

    `met` opens it. `turned` voids a proposal that it raised: some E is below 1, or a minimum or
    the missing rule fails. `lacks` says in words what holds it.
    """

    readings: tuple[Reading, ...]
    lacks: tuple[str, ...]
    met: bool
    turned: bool


def risk_of(gate: Gate, attempt: int) -> float:
    """Return the gate's risk in `attempt`: whole in the first, risk/(k(k+1)) in the k-th.

    All later attempts together have at most half of the first one's.
    """
    return gate.risk if attempt == 1 else gate.risk / (attempt * (attempt + 1))


def log_e(condition: Condition, counts: Sequence[int], policy: Policy) -> float:
    """Return log E of a condition on its counts, in the policy's unit."""
    if condition.measure == "cost":
        return log_e_cost(scaled_levels(policy), counts, at_most=scaled_line(condition, policy))
    if condition.measure == "parity":
        both, model_alone, split, all_differ = counts
        return log_e_parity(both, model_alone, split, all_differ, margin=-condition.line)
    agreed, disagreed = counts
    return log_e_value(agreed, disagreed, at_least=condition.line)


def scaled_levels(policy: Policy) -> tuple[float, ...]:
    """Return the policy's cost levels as shares of its largest cost."""
    return tuple(level / policy.largest_cost for level in policy.cost_levels)


def scaled_line(condition: Condition, policy: Policy) -> float:
    """Return a cost line as a share of the policy's largest cost."""
    return condition.line / policy.largest_cost


def read_condition(
    condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy
) -> Reading:
    """Weigh one condition: shares by integer lines, which say what their e-values say."""
    if condition.measure in BY_E_VALUE:
        value = log_e(condition, counts, policy)
        is_met, has_turned = value >= log(1 / risk), value < 0
    else:
        agreed, disagreed = counts
        is_met = gate_line(condition.line, risk).met(agreed, disagreed)
        has_turned = not gate_line(condition.line, 1.0).met(agreed, disagreed)
    return Reading(condition, counts, risk, met=is_met, turned=has_turned)


def read_gate(
    policy: Policy, cell: Cell, rung: int, attempt: int, counted: Counted, since: Counted
) -> GateReading:
    """Read the gate to `rung` with those below it, all at this gate's risk.

    Args:
        policy: the policy in force; it must have a gate to `rung` that fits `cell`.
        cell: the cell asked about.
        rung: the rung that the gate leads to.
        attempt: which attempt the evidence is of; a later one has less risk.
        counted: all evidence of the attempt.
        since: the units since the cell entered the stage below, for the gate's minimum.
    """
    gate = policy.gate(rung, cell)
    assert gate is not None  # noqa: S101 - the caller asks only for gates that exist
    unmet_requirements = lacking(gate, counted, since, policy.evidence.missing_at_most)
    return _joined(policy, rung, cell, risk_of(gate, attempt), counted, unmet_requirements)


def gate_opens(
    policy: Policy, cell: Cell, rung: int, attempt: int, counted: Counted, since: Counted
) -> bool:
    """Say whether `read_gate` would be met, stopping at the first thing that is not.

    Integer lines are looked at before e-values: most cells of a tick end there.
    """
    gate = policy.gate(rung, cell)
    if gate is None or lacking(gate, counted, since, policy.evidence.missing_at_most):
        return False
    risk = risk_of(gate, attempt)
    conditions = sorted(policy.required(rung, cell), key=lambda c: c.measure in BY_E_VALUE)
    return all(
        read_condition(c, counts_of(c, counted, policy), risk, policy).met for c in conditions
    )


def read_renewal(policy: Policy, cell: Cell, rung: int, span: Counted) -> GateReading:
    """Read whether a grant of `rung` may be prolonged on what its own span has shown.

    Met is E of at least 1 for each measure of the gate, with its minimum of units and people,
    at least one judged unit whatever the minimum: a fresh E of 1/risk would lapse most good
    cells (model.md §2), and E is 1 on no data at all.
    """
    gate = policy.gate(rung, cell)
    assert gate is not None  # noqa: S101 - a grant stands on a gate
    unmet_requirements = tuple(s for s in _minimum_lacks(gate, span) if not s.endswith("days"))
    if not (unmet_requirements or span.judged):
        unmet_requirements = ("0 of 1 judged units",)
    return _joined(policy, rung, cell, 1.0, span, unmet_requirements)


def _joined(
    policy: Policy, rung: int, cell: Cell, risk: float, counted: Counted, lacks: tuple[str, ...]
) -> GateReading:
    readings = tuple(
        read_condition(c, counts_of(c, counted, policy), risk, policy)
        for c in policy.required(rung, cell)
    )
    return GateReading(
        readings,
        lacks,
        met=not lacks and all(reading.met for reading in readings),
        turned=bool(lacks) or any(reading.turned for reading in readings),
    )


def counts_of(condition: Condition, counted: Counted, policy: Policy) -> tuple[int, ...]:
    """Return the condition's counts, zeros where nothing was counted."""
    values = counted.counts.get(condition.key)
    if values is not None:
        return values
    width = {"cost": len(policy.cost_levels), "parity": 4}.get(condition.measure, 2)
    return (0,) * width


def lacking(
    gate: Gate, counted: Counted, since: Counted, missing_at_most: float
) -> tuple[str, ...]:
    """Say in words which minimum, or the missing rule, holds the gate; empty where none does."""
    unmet_requirements = _minimum_lacks(gate, since)
    if counted.missing > missing_at_most * counted.closed:
        share = f"{counted.missing} of {counted.closed}"
        unmet_requirements = (
            *unmet_requirements,
            f"{share} units have no verdict, at most {missing_at_most * 100:g} %",
        )
    return unmet_requirements


def _minimum_lacks(gate: Gate, since: Counted) -> tuple[str, ...]:
    least = gate.minimum
    rows = (
        (since.judged, least.units, "judged units"),
        (since.reviewers, least.reviewers, "reviewers"),
        (since.days, least.days, "days"),
    )
    return tuple(
        f"{actual} of {required} {label}" for actual, required, label in rows if actual < required
    )


def bound(reading: Reading) -> float | None:
    """Return the lower bound, valid at every look, of a share; None for costs and parity."""
    if len(reading.counts) != 2:
        return None
    return lower_bound(*reading.counts, alpha=reading.risk)
