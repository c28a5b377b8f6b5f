"""The state of a gate: its conditions on the current evidence, and what is missing."""

from dataclasses import dataclass

from rollout.kernel.facts import UnmetRequirement


@dataclass(frozen=True, slots=True)
class ConditionFacts:
    """One condition of a gate on the current evidence.

    Attributes:
        condition, measure, label, lever: what is measured.
        name, unit: the condition without its threshold; of amounts their unit, "" of shares.
        threshold, at_least: the threshold in the measure's unit, and its direction.
        n, counts: records, and their classes (agreeing and not; per cost level; of
            a gain units of the model's arm, of people's, and without outcome).
        estimate: plain share or mean cost, None without records.
        bound: the deciding bound, valid at every look; None without records.
        log_e, log_e_needed: the evidence, and what opens the gate; natural logarithms.
        met: whether this condition is met.
        records_needed_min: agreements still needed if all further records agree; None if none are
            needed, or the measure is no share.
        probability_below: chance that the true share is below the threshold, given the counts.
        records_needed_p50, records_needed_p90: further records after which the condition is met
            with a chance of 50 % and 90 % at the present share; None if that is not expected.
        is_planted: whether it is about planted cases, which come as users plant them.
    """

    condition: str
    name: str
    unit: str
    measure: str
    label: str | None
    lever: str | None
    threshold: float
    at_least: bool
    n: int
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    log_e: float
    log_e_needed: float
    met: bool
    records_needed_min: int | None
    probability_below: float | None
    records_needed_p50: int | None
    records_needed_p90: int | None
    is_planted: bool = False

    @property
    def is_estimate_met(self) -> bool:
        """Return whether the estimate is within the threshold, or unknown."""
        if self.estimate is None:
            return True
        return self.estimate >= self.threshold if self.at_least else self.estimate <= self.threshold

    def describe_need(self) -> str:
        """Describe an unmet condition; the estimate alone may be within the threshold."""
        is_near = self.estimate is not None and self.is_estimate_met
        evidence = "more evidence for " if is_near else ""
        return f"the gate needs {evidence}{self.condition}"


@dataclass(frozen=True, slots=True)
class GateFacts:
    """The state of a gate: its conditions, and its other `unmet` requirements, in words `missing`.

    `cases` says which cases count, at a confidence floor above the lowest; else it is "".
    """

    to: str
    risk: float
    met: bool
    missing: tuple[str, ...]
    unmet: tuple[UnmetRequirement, ...]
    required_approvals: tuple[str, ...]
    conditions: tuple[ConditionFacts, ...]
    cases: str = ""
