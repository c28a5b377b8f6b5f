"""Evaluation of a gate: its conditions against thresholds, its minimum and missing units."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import EvidenceCounts
from rollout.core.policy.confidence_floors import compute_gate_risk
from rollout.core.policy.gain_readings import GainReading
from rollout.core.policy.policy import Gate, Policy
from rollout.core.policy.slice_conditions import (
    expand_conditions,
    list_unmet_slices,
)
from rollout.core.statistics.evidence import (
    compute_cost_log_e,
    compute_log_e,
)
from rollout.core.statistics.gain import ArmUnits, build_empty_arms
from rollout.core.statistics.gate_thresholds import get_gate_threshold
from rollout.kernel.facts import to_facts
from rollout.kernel.measures import Condition, Statistic
from rollout.kernel.readings import (
    DAYS,
    MISSING,
    RECENT_MISSING,
    REVIEWERS,
    UNITS,
    StoredReading,
    UnmetRequirement,
)


@dataclass(frozen=True, slots=True)
class ConditionReading:
    """One condition of a gate, evaluated at one risk."""

    condition: Condition
    counts: tuple[int, ...]
    risk: float
    is_met: bool
    has_turned: bool
    gain: GainReading | None = None

    def compute_log_e(self, policy: Policy) -> float:
        """Return ln E; 0 without records."""
        if self.gain is not None:
            return self.gain.log_e
        return compute_condition_log_e(self.condition, self.counts, policy)

    def store(self, policy: Policy) -> StoredReading:
        """Return the reading as a proposal freezes it."""
        return StoredReading(
            condition=to_facts(self.condition),
            counts=self.counts,
            log_e=f"{self.compute_log_e(policy):.6f}",
            risk=repr(self.risk),
            **({} if self.gain is None else self.gain.list_amounts()),
        )


@dataclass(frozen=True, slots=True)
class GateReading:
    """A gate evaluated for one cell and version.

    `is_met` opens the gate. `has_turned` voids its proposal: some E is below 1, or a minimum or the
    missing rule fails. `unmet_requirements` lists those. Of `floors`, the confidence floors
    that are met, the first is the one that was evaluated.
    """

    readings: tuple[ConditionReading, ...]
    unmet_requirements: tuple[UnmetRequirement, ...]
    is_met: bool
    has_turned: bool
    floors: tuple[str, ...] = ()


def compute_condition_log_e(condition: Condition, counts: Sequence[int], policy: Policy) -> float:
    """Return ln E of a condition on its counts."""
    if condition.measure.statistic is Statistic.MEAN:
        return compute_cost_log_e(
            policy.cost_shares, counts, at_most=policy.scale_cost(condition.threshold)
        )
    agreed, disagreed = counts
    return compute_log_e(agreed, disagreed, at_least=condition.share)


def read_condition(
    condition: Condition,
    counts: tuple[int, ...],
    risk: float,
    policy: Policy,
) -> ConditionReading:
    """Evaluate one condition; tables of thresholds replace e-values of shares."""
    if condition.measure.statistic is not Statistic.SHARE:
        value = compute_condition_log_e(condition, counts, policy)
        is_met, has_turned = value >= log(1 / risk), value < 0
    else:
        agreed, disagreed = counts
        is_met = get_gate_threshold(condition.share, risk).is_met(agreed, disagreed)
        has_turned = not get_gate_threshold(condition.share, 1.0).is_met(agreed, disagreed)
    return ConditionReading(condition, counts, risk, is_met=is_met, has_turned=has_turned)


def read_gate(
    policy: Policy,
    cell: Cell,
    stage_level: int,
    risk_share: float,
    counts: EvidenceCounts,
    counts_since_entry: EvidenceCounts,
) -> GateReading:
    """Evaluate the gate to `stage_level` and those below it, all at its risk.

    The policy must have a gate to `stage_level` that fits `cell`.

    Args:
        risk_share: the share of each gate's risk that the attempt may use, in (0, 1].
        counts: all evidence of the attempt.
        counts_since_entry: since the cell entered the stage below, for the gate's minimum.
    """
    gate = policy.find_gate(stage_level, cell)
    assert gate is not None  # noqa: S101 - the caller asks only for gates that exist
    unmet_requirements = (
        *list_unmet_requirements(gate, counts, counts_since_entry, policy.evidence.missing_at_most),
        *list_unmet_slices(
            policy.list_conditions(stage_level, cell), counts.slices, has_minimum=True
        ),
    )
    risk = compute_gate_risk(policy, gate, risk_share)
    return _read_conditions(policy, stage_level, cell, risk, counts, unmet_requirements)


def is_gate_open(
    policy: Policy,
    cell: Cell,
    stage_level: int,
    risk_share: float,
    counts: EvidenceCounts,
    counts_since_entry: EvidenceCounts,
) -> bool:
    """Return whether `read_gate` would be met; stop at the first failure.

    Most cells of a tick fail a minimum or a share, so the slower e-values come last.
    """
    gate = policy.find_gate(stage_level, cell)
    if gate is None or list_unmet_requirements(
        gate, counts, counts_since_entry, policy.evidence.missing_at_most
    ):
        return False
    risk = compute_gate_risk(policy, gate, risk_share)
    gate_conditions = policy.list_conditions(stage_level, cell)
    if any(list_unmet_slices(gate_conditions, counts.slices, has_minimum=True)):
        return False
    e_value_conditions = []
    for condition in expand_conditions(gate_conditions, counts.slices):
        if condition.measure.statistic is not Statistic.SHARE:
            e_value_conditions.append(condition)
        elif not _is_condition_met(condition, counts, risk, policy):
            return False
    return all(_is_condition_met(c, counts, risk, policy) for c in e_value_conditions)


def _is_condition_met(
    condition: Condition, counts: EvidenceCounts, risk: float, policy: Policy
) -> bool:
    """Return whether a condition is met, without asking whether it has turned."""
    if condition.measure.statistic is not Statistic.SHARE:
        return _read_evidence(condition, counts, risk, policy).is_met
    agreed, disagreed = get_condition_counts(condition, counts, policy)
    return get_gate_threshold(condition.share, risk).is_met(agreed, disagreed)


def _read_evidence(
    condition: Condition, counts: EvidenceCounts, risk: float, policy: Policy
) -> ConditionReading:
    if condition.population.has_gain:
        units = counts.arms.get(condition.key)
        return read_gain(condition, build_empty_arms() if units is None else units, risk)
    condition_counts = get_condition_counts(condition, counts, policy)
    return read_condition(condition, condition_counts, risk, policy)


def read_gain(condition: Condition, units: ArmUnits, risk: float) -> ConditionReading:
    """Evaluate a condition on gain."""
    gain = GainReading(condition, units, risk)
    return ConditionReading(condition, gain.counts, risk, gain.is_met, gain.has_turned, gain)


def read_renewal(
    policy: Policy, cell: Cell, stage_level: int, counts: EvidenceCounts
) -> GateReading:
    """Evaluate whether the evidence of a grant's own span allows its renewal.

    Each measure needs E ≥ 1, with the gate's minimum of units and reviewers and at least one judged
    unit: E is 1 without data, and a new E of 1/risk would let most good cells lapse. So does each
    value of a slice that the span has, however few its units.
    """
    gate = policy.find_gate(stage_level, cell)
    assert gate is not None  # noqa: S101 - a grant needs a gate
    unmet_requirements = tuple(
        lack for lack in _list_unmet_minimums(gate, counts) if lack.kind != DAYS
    )
    if not (unmet_requirements or counts.decided):
        unmet_requirements = (UnmetRequirement(UNITS, 0, 1),)
    unmet_slices = list_unmet_slices(
        policy.list_conditions(stage_level, cell), counts.slices, has_minimum=False
    )
    unmet_requirements = (*unmet_requirements, *unmet_slices)
    return _read_conditions(policy, stage_level, cell, 1.0, counts, unmet_requirements)


def _read_conditions(
    policy: Policy,
    stage_level: int,
    cell: Cell,
    risk: float,
    counts: EvidenceCounts,
    unmet_requirements: tuple[UnmetRequirement, ...],
) -> GateReading:
    readings = tuple(
        _read_evidence(condition, counts, risk, policy)
        for condition in expand_conditions(policy.list_conditions(stage_level, cell), counts.slices)
    )
    return GateReading(
        readings,
        unmet_requirements,
        is_met=not unmet_requirements and all(reading.is_met for reading in readings),
        has_turned=bool(unmet_requirements) or any(reading.has_turned for reading in readings),
    )


def get_condition_counts(
    condition: Condition, counts: EvidenceCounts, policy: Policy
) -> tuple[int, ...]:
    """Return the condition's counts, zeros without records."""
    if condition.population.attribute and condition.population.value is not None:
        return counts.slices[condition.key][condition.population.value][:2]
    values = counts.counts.get(condition.key)
    if values is not None:
        return values
    return (0,) * condition.measure.get_width(len(policy.cost_levels))


def list_unmet_requirements(
    gate: Gate, counts: EvidenceCounts, counts_since_entry: EvidenceCounts, missing_at_most: float
) -> tuple[UnmetRequirement, ...]:
    """Return the unmet minimums and missing rule.

    Few may be missing in the attempt, and in its last days: who falls silent late is held.
    """
    unmet_requirements = _list_unmet_minimums(gate, counts_since_entry)
    spans = (
        (MISSING, counts.missing, counts.closed),
        (RECENT_MISSING, counts.recent_missing, counts.recent_closed),
    )
    unmet_shares = (
        UnmetRequirement(kind, missing, closed, share_at_most=missing_at_most)
        for kind, missing, closed in spans
        if missing > missing_at_most * closed
    )
    return (*unmet_requirements, *unmet_shares)


def _list_unmet_minimums(
    gate: Gate, counts_since_entry: EvidenceCounts
) -> tuple[UnmetRequirement, ...]:
    least = gate.minimum
    rows = (
        (UNITS, counts_since_entry.decided, least.units),
        (REVIEWERS, counts_since_entry.reviewers, least.reviewers),
        (DAYS, counts_since_entry.days, least.days),
    )
    return tuple(
        UnmetRequirement(kind, actual, needed) for kind, actual, needed in rows if actual < needed
    )
