"""What the model's arm brought beyond the people's arm, per cell, version and outcome.

All units count that the sampling value alone gave to an arm, in all attempts. The interval holds at
every look; unknown outcomes count against the model below, and against people above.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from rollout.core.statistics.gain import ArmUnits, compute_gain_interval, estimate_gain
from rollout.kernel.outcomes import DECIDES, PROPOSES, OutcomeRule
from rollout.reports.inputs.inputs import ReportInputs
from rollout.tally.evidence_view import EvidenceView
from rollout.tally.slots import FIRST_SLOT

INTERVAL_RISK = 0.05


@dataclass(frozen=True, slots=True)
class GainFacts:
    """What one version brought in one cell, in the outcome's unit.

    Attributes:
        site, window, version: the cell and the version.
        outcome, unit: the outcome and the unit of its values.
        arm: `decides` or `proposes`, what the model did in its arm.
        model_units, human_units: units with a value, by arm.
        missing: units of both arms whose deadline passed without a value.
        model_missing, human_missing: the same by arm.
        missing_reasons: units whose value is of no source of evidence, by reason: also missing.
        model_mean, human_mean: mean values, clipped to the policy's range; None without units.
        gain: the model's arm less the people's, as better counts; None without both arms.
        lower, upper: its interval of 95 %, valid at every look.
        has_one_share: whether all units had the same chance to get to the model.
        without_arm: units of the same stages that are in no arm: more than chance decided them.
        has_recorded_arms: whether the records say which arm a unit was in; without, the replay
            assigned the arms.
        more_is_better: whether a higher value is better; if not, a gain is a lower mean.
    """

    site: str
    window: str
    version: str
    outcome: str
    unit: str
    arm: str
    model_units: int
    human_units: int
    missing: int
    model_missing: int
    human_missing: int
    model_mean: float | None
    human_mean: float | None
    gain: float | None
    lower: float
    upper: float
    has_one_share: bool
    without_arm: int = 0
    has_recorded_arms: bool = True
    missing_reasons: Mapping[str, int] = field(default_factory=dict)
    more_is_better: bool = True


def compute_gains(inputs: ReportInputs) -> tuple[GainFacts, ...]:
    """Return the gains of all cells and versions with units at a stage with two arms."""
    return tuple(
        gain
        for key in inputs.cell_versions
        for outcome in inputs.policy.outcomes
        for gain in compute_view_gains(inputs.evidence_views[key], outcome)
    )


def compute_view_gains(view: EvidenceView, outcome: OutcomeRule) -> Iterator[GainFacts]:
    """Yield one version's gain in one cell, for each thing that the model did in its arm."""
    for arm in (DECIDES, PROPOSES):
        units = view.build_arms(outcome, arm, FIRST_SLOT)
        staged_count = view.arm_reader.count_staged(outcome, arm)
        if staged_count:
            yield _build_gain_facts(view, outcome, arm, units, staged_count - len(units))


def _build_gain_facts(
    view: EvidenceView, outcome: OutcomeRule, arm: str, units: ArmUnits, without_arm: int
) -> GainFacts:
    is_known, is_model = units.is_known, units.is_model
    lower, upper = compute_gain_interval(units, alpha=INTERVAL_RISK)
    gain = estimate_gain(units)
    return GainFacts(
        site=view.cell.site,
        window=view.cell.window,
        version=view.version,
        outcome=outcome.id,
        unit=outcome.unit,
        arm=arm,
        model_units=int((is_known & is_model).sum()),
        human_units=int((is_known & ~is_model).sum()),
        missing=int((~is_known).sum()),
        model_missing=int((~is_known & is_model).sum()),
        human_missing=int((~is_known & ~is_model).sum()),
        model_mean=_compute_mean(outcome, units.scores[is_known & is_model]),
        human_mean=_compute_mean(outcome, units.scores[is_known & ~is_model]),
        gain=None if gain is None else gain * outcome.span,
        lower=lower * outcome.span,
        upper=upper * outcome.span,
        has_one_share=len(np.unique(units.shares[is_known])) <= 1,
        without_arm=without_arm,
        has_recorded_arms=view.arm_reader.has_recorded_arms(outcome),
        missing_reasons=view.arm_reader.count_source_faults(outcome, arm),
        more_is_better=outcome.more_is_better,
    )


def _compute_mean(outcome: OutcomeRule, scores: np.ndarray) -> float | None:
    """Return the mean value of scores, in the outcome's unit; None without any."""
    if not len(scores):
        return None
    distance = float(scores.mean()) * outcome.span
    return outcome.low + distance if outcome.more_is_better else outcome.high - distance
