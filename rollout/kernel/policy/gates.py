"""Evaluation of gates and renewals, the risk of each attempt, and what speaks against widening now.

A gate has conditions against thresholds, a minimum and a rule on missing units. A condition on gain
has both arms, missing outcomes, evidence and a bound.

The attempts of a cell are numbered over all versions from 1 January on, and their shares of a
gate's risk sum to at most 1: however many versions are tried, the chance that one of the year's
attempts opens a gate wrongly is at most the gate's risk.

A gate reads units after their grace. Whoever approves in between would not hear that a version
turned bad yesterday. So before a widening the units inside their grace whose answer is known are
read beside those that count; of them, such as can no longer count for the version are missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from math import comb, floor, log, log10
from typing import TYPE_CHECKING, Final, NamedTuple

from rollout.kernel.arrays import Bools, Ints, np
from rollout.kernel.facts import (
    ALARM,
    DAYS,
    MISSING,
    NEWEST,
    RECENT_MISSING,
    REVIEWERS,
    TURNED,
    UNITS,
    UNPLACED,
    FreshFact,
    StoredReading,
    UnmetRequirement,
    to_facts,
)
from rollout.kernel.measures import Condition, MeasureKey, Statistic
from rollout.kernel.policy.cell_evidence import (
    EvidenceCounts,
    compute_gate_risk,
    expand_conditions,
    list_unmet_slices,
)
from rollout.kernel.statistics.evidence import compute_cost_log_e, compute_log_e
from rollout.kernel.statistics.gain import (
    ArmUnits,
    build_empty_arms,
    compute_gain_interval,
    compute_gain_log_path,
    compute_gain_lower_bound,
    estimate_gain,
)
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rollout.kernel.calendar.instants import Cell
    from rollout.kernel.policy.policy import Gate, Policy
INTERVAL_RISK = 0.05


@dataclass(frozen=True)
class GainReading:
    """What a condition on gain finds in the units of both arms, at one risk.

    Amounts are in the outcome's unit.
    """

    condition: Condition
    units: ArmUnits = field(repr=False)
    risk: float

    @cached_property
    def counts(self) -> tuple[int, int, int]:
        """Return units with an outcome of the model's arm, of the people's, and those without."""
        is_known, is_model = self.units.is_known, self.units.is_model
        return (
            int((is_known & is_model).sum()),
            int((is_known & ~is_model).sum()),
            int((~is_known).sum()),
        )

    @cached_property
    def log_e(self) -> float:
        """Return ln E; 0 without units."""
        path = compute_gain_log_path(self.units, at_least=self.condition.scaled_threshold)
        return float(path[-1]) if len(path) else 0.0

    @property
    def is_met(self) -> bool:
        """Return whether the evidence suffices, with both arms as drawn and outcomes known."""
        model, people, _ = self.counts
        has_both = model > 0 and people > 0 and not self.lacks_units
        return has_both and not self.lacks_outcomes and self.log_e >= log(1 / self.risk)

    @property
    def has_turned(self) -> bool:
        """Return whether the evidence speaks against the model, or too much is missing."""
        return self.lacks_outcomes or self.lacks_units or self.log_e < 0

    @property
    def lacks_units(self) -> bool:
        """Return whether an arm has far fewer units than were drawn for it."""
        return len(self.units) > 0 and not self.units.are_arms_as_drawn[-1]

    @property
    def arm_log_e(self) -> float:
        """Return the largest ln E so far against "chance alone made the arms"."""
        return float(self.units.arm_log_path.max()) if len(self.units) else 0.0

    @property
    def lacks_outcomes(self) -> bool:
        """Return whether more outcomes are missing than the policy allows."""
        missing = float((1 - self.units.known_shares).sum())
        return missing > self.condition.population.outcome.missing_at_most * len(self.units)

    @cached_property
    def estimate(self) -> float | None:
        """Return the gain so far, over known outcomes; None without both arms."""
        gain = estimate_gain(self.units)
        return None if gain is None else gain * self.condition.population.outcome.span

    @cached_property
    def bound(self) -> float | None:
        """Return the gain's lower bound, valid at every look; None where there is none yet."""
        if not len(self.units) or self.risk >= 1:
            return None
        bound = compute_gain_lower_bound(self.units, alpha=self.risk)
        return None if bound <= -1 else bound * self.condition.population.outcome.span

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Return the bounds of the gain that hold at every look in 95 % of all histories."""
        span = self.condition.population.outcome.span
        lower, upper = compute_gain_interval(self.units, alpha=INTERVAL_RISK)
        return lower * span, upper * span

    def list_amounts(self) -> dict[str, str]:
        """Return what a stored reading of a gain has beyond others."""
        amounts = {}
        if self.estimate is not None:
            amounts["estimate"] = f"{self.estimate:.6g}"
            if self.bound is not None:
                amounts["bound"] = f"{round_down(self.bound):.6g}"
        if self.lacks_units:
            amounts["draw_log_e"] = f"{self.arm_log_e:.6f}"
        return amounts


def round_down(value: float) -> float:
    """Return a value rounded down to three digits, so that no bound looks met.

    >>> round_down(0.12999), round_down(-3.3301)
    (0.129, -3.34)
    """
    if not value:
        return 0.0
    scale = 10.0 ** (2 - floor(log10(abs(value))))
    return floor(round(value * scale, 6)) / scale


def is_gain_met(condition: Condition, units: ArmUnits, slots: Ints, risk: float) -> Bools:
    """Return whether a condition is met at each of some slots, as `GainReading.is_met` has it."""
    ends = units.last_positions
    log_path = compute_gain_log_path(units, at_least=condition.scaled_threshold)
    is_met = log_path >= log(1 / risk)
    for is_arm in (units.is_model, ~units.is_model):
        is_met &= np.cumsum(units.is_known & is_arm)[ends] > 0
    is_met &= units.are_arms_as_drawn[ends]
    missing = np.cumsum(1 - units.known_shares)[ends]
    is_met &= missing <= condition.population.outcome.missing_at_most * (ends + 1)
    positions = np.searchsorted(units.slots[ends], slots, side="right")
    result: Bools = np.concatenate([[False], is_met])[positions]
    return result


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


# The sum of k^-1.5 over all whole numbers k from 1 on: Riemann's zeta function at 1.5.
_ZETA_OF_THREE_HALVES: Final = 2.6123753486854883
PLANNED_SHARE: Final = 0.8
"""What the releases that a policy plans for share equally; later ones share the rest."""


def compute_yearly_share(number: int, releases: int = 0) -> float:
    """Return the share of the attempt with this number in its cell's year.

    Args:
        number: of the attempt, from 1.
        releases: how many attempts a year the policy plans for; 0 if it doesn't say.

    >>> [round(compute_yearly_share(number), 9) for number in (1, 2, 5)]
    [0.382793384, 0.135337899, 0.034238081]
    >>> compute_yearly_share(4, releases=4), round(compute_yearly_share(5, releases=4), 9)
    (0.2, 0.1)
    """
    if not releases:
        return float(number**-1.5) / _ZETA_OF_THREE_HALVES
    if number <= releases:
        return PLANNED_SHARE / releases
    later = number - releases
    return (1 - PLANNED_SHARE) / (later * (later + 1))


def describe_attempt(number: int, share: float) -> str:
    """Describe an attempt by its number in the cell's year and its share of the risk.

    >>> describe_attempt(4, compute_yearly_share(4))
    "attempt 4 of the year in this cell, over all versions, with 4.78 % of the gate's risk"
    """
    return (
        f"attempt {number} of the year in this cell, over all versions, with {share * 100:.3g} % of"
        " the gate's risk"
    )


def describe_restart(cell: str, questions: Sequence[str], number: int, share: float) -> str:
    """Describe what an edit costs a cell: its next attempt; without questions for a higher risk.

    >>> describe_restart("creek/day", ["agreement at least 95 %"], 2, compute_yearly_share(2))
    ... # doctest: +ELLIPSIS
    "creek/day: agreement at least 95 % starts anew, as attempt 2 of the year in this cell, ..."
    """
    subject = ", ".join(questions) or "evidence for a higher risk"
    verb = "start" if len(questions) > 1 else "starts"
    return (
        f"{cell}: {subject} {verb} anew, as {describe_attempt(number, share)}; only units that"
        " occur from then on count"
    )


def describe_releases(releases: int) -> str:
    """Return how a year's attempts share the risk, for a sentence.

    >>> describe_releases(12)
    'the first 12 attempts of a year share 80 % of the risk equally'
    """
    if not releases:
        return "each attempt of a year gets a smaller share of the risk than the one before"
    attempts = "attempt of a year has" if releases == 1 else f"{releases} attempts of a year share"
    return f"the first {attempts} {PLANNED_SHARE * 100:g} % of the risk" + (
        "" if releases == 1 else " equally"
    )


NEWEST_SIZES: Final = (20, 50, 100)
NEWEST_LEVEL: Final = 0.05
"""A cell at the gate's line has so few agreements among its newest answers less often than this."""


class UnplacedDecisions(NamedTuple):
    """Decisions whose case and site nobody knows, among all: of seven days, or of a file."""

    unplaced: int = 0
    decided: int = 0


NO_UNPLACED: Final = UnplacedDecisions()


@dataclass(frozen=True, slots=True)
class FreshEvidence:
    """Evidence of one version in a cell with the units inside their grace whose answer is known.

    Attributes:
        fresh: counts of these units alone.
        attempt: all counts of the attempt, with them.
        newest: per share condition (agreements, answers) among the newest 20, 50 and 100 answers,
            as far as there are so many.
        alarms: conditions of guards that are in alarm now if they are run over the attempt.
        unplaced: decisions of the rollout that belong to no cell.
        floors: the same at each confidence floor, lowest first; () without several.
    """

    fresh: EvidenceCounts
    attempt: EvidenceCounts
    newest: Mapping[MeasureKey, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    alarms: tuple[Condition, ...] = ()
    unplaced: UnplacedDecisions = NO_UNPLACED
    floors: tuple[FreshEvidence, ...] = ()

    def get_floor(self, floor_index: int) -> FreshEvidence:
        """Return the evidence at a confidence floor, by its place in the policy's list."""
        return self.floors[floor_index] if self.floors else self


def list_fresh_facts(
    policy: Policy, cell: Cell, stage_level: int, evidence: FreshEvidence
) -> tuple[FreshFact, ...]:
    """Return what holds the widening of a cell to a stage now, () if nothing does."""
    return tuple(_find_fresh_facts(policy, cell, stage_level, evidence))


def _find_fresh_facts(
    policy: Policy, cell: Cell, stage_level: int, evidence: FreshEvidence
) -> Iterator[FreshFact]:
    for condition in policy.list_conditions(stage_level, cell):
        if condition.population.sums_units:
            yield from _find_turned(policy, condition, evidence.attempt)
            yield from _find_rare(condition, evidence.newest.get(condition.key, ()))
    yield from (FreshFact(ALARM, condition) for condition in evidence.alarms)
    unplaced, decided = evidence.unplaced
    if unplaced > policy.evidence.missing_at_most * decided:
        yield FreshFact(UNPLACED, None, unplaced, decided)


def _find_turned(
    policy: Policy, condition: Condition, counts: EvidenceCounts
) -> Iterator[FreshFact]:
    for part in expand_conditions((condition,), counts.slices):
        values = get_condition_counts(part, counts, policy)
        if read_condition(part, values, 1.0, policy).has_turned:
            yield FreshFact(TURNED, part, values[0], sum(values))


def _find_rare(condition: Condition, newest: tuple[tuple[int, int], ...]) -> Iterator[FreshFact]:
    """Yield the largest number of newest answers that agree too seldom."""
    for agreed, size in reversed(newest):
        if agreed < find_least_agreements(size, condition.share):
            yield FreshFact(NEWEST, condition, agreed, size)
            return


@cache
def find_least_agreements(size: int, line: float) -> int:
    """Return the fewest agreements that a cell at the line has in 5 % of its newest answers.

    >>> find_least_agreements(20, 0.95), find_least_agreements(100, 0.9)
    (17, 85)
    """
    below, agreed = 0.0, 0
    while True:
        below += comb(size, agreed) * line**agreed * (1 - line) ** (size - agreed)
        if below >= NEWEST_LEVEL:
            return agreed
        agreed += 1
