"""Units that a gate on gain needs, and warnings on arms that are too small to tell.

No record says beforehand what a model will bring. So the plan names the units for gains of 5, 10
and 20 % of the outcome's range above the threshold, with values that spread by a fifth of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import scipy

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.policy import Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.policy.stages import Stage
from rollout.kernel.measures import Condition
from rollout.kernel.outcomes import OutcomeRule

PLANNED_GAINS = (0.05, 0.1, 0.2)  # shares of the outcome's range
PLANNED_SPREAD = 0.2  # standard deviation, as a share of the range
PRICE_OF_LOOKING = 2.2  # times the units of a t-test that is looked at once
POWER = 0.8
SMALL_ARM = 0.1


@dataclass(frozen=True, slots=True)
class GainNeed:
    """Units until a gate opens, for a gain above its threshold in the outcome's unit."""

    gain: float
    units: int


def count_needed_units(gain: float, share: float, risk: float, spread: float) -> int:
    """Return the units of both arms until a gate on gain is likely to open.

    Args:
        gain: above the threshold, as a share of the range.
        share: probability of the model's arm.
        risk: of the gate.
        spread: standard deviation of the outcome, as a share of the range.

    >>> count_needed_units(0.1, 0.5, 0.05, 0.2)
    218
    """
    quantiles = float(scipy.special.ndtri(1 - risk) + scipy.special.ndtri(POWER))
    once = (quantiles * spread / gain) ** 2 / (share * (1 - share))
    return ceil(PRICE_OF_LOOKING * once)


def find_measuring_stage(policy: Policy, condition: Condition, stage_level: int) -> Stage | None:
    """Return the highest stage below a gate whose arms its gain is measured with."""
    lower_stages = policy.stages[: stage_level - 1]
    measuring = [s for s in lower_stages if s.model_share and s.arm == condition.population.arm]
    return measuring[-1] if measuring else None


def list_gain_needs(stage: Stage, condition: Condition, risk: float) -> tuple[GainNeed, ...]:
    """Return the units for each planned gain."""
    share = stage.model_share or 0.5
    return tuple(
        GainNeed(
            condition.threshold + gain * condition.population.outcome.span,
            count_needed_units(gain, share, risk, PLANNED_SPREAD),
        )
        for gain in PLANNED_GAINS
    )


def describe_gain_need(policy: Policy, condition: Condition, to: str, risk: float) -> str:
    """Return the units that a condition needs, as text."""
    stage = find_measuring_stage(policy, condition, policy.stage_ids.index(to))
    if stage is None:
        return "no stage below measures it"
    outcome, share = condition.population.outcome, (stage.model_share or 0.0) * 100
    needs = ", ".join(
        f"{need.units:,} for {outcome.format_amount(need.gain)}"
        for need in list_gain_needs(stage, condition, risk)
    )
    spread = f"{PLANNED_SPREAD * outcome.span:g} {outcome.unit}".rstrip()
    return (
        f"units at {stage.id}, {share:g} % of them by the model: about"
        f" {needs}, if values spread by"
        f" {spread} (standard deviation){_describe_binary_need(outcome)}a unit counts"
        f" {format_duration(outcome.closes)} after its case"
    )


def _describe_binary_need(outcome: OutcomeRule) -> str:
    """Return how many more units values of 0 and 1 need, with a separator."""
    if (outcome.low, outcome.high) != (0, 1):
        return "; "
    factor = (0.5 / PLANNED_SPREAD) ** 2  # 0.5: the widest spread of such values
    return f", up to {factor:.0f} times as many if each is 0 or 1; "


def _list_takeover_warnings(policy: Policy) -> Iterator[PolicyWarning]:
    """Yield a warning if no challenger can take over from a stage that asks for a gain."""
    levels = {
        policy.stage_ids.index(gate.to)
        for gate in policy.gates
        for condition in gate.require
        if condition.population.has_gain and gate.to in policy.stage_ids
    }
    if not levels:
        return
    level, floor = min(levels), policy.takeover_floor
    if floor is not None and floor < level:
        return
    text = (
        "before it acts, a newer version has no units in the model's arm: it never meets the gate"
        f" to {policy.stage_ids[level]}, and can't take over a cell that holds this"
        f" stage; with takeover: {policy.stage_ids[level - 1]} operators may propose it there"
    )
    yield PolicyWarning("takeover", text)


def list_gain_warnings(policy: Policy) -> Iterator[PolicyWarning]:
    """Yield a warning for each small arm, where a gain is asked for."""
    conditions = [
        *(condition for gate in policy.gates for condition in gate.require),
        *(guard.condition for guard in policy.guards),
    ]
    if not any(condition.population.has_gain for condition in conditions):
        return
    for index, stage in enumerate(policy.stages):
        share = stage.model_share
        if share is not None and round(min(share, 1 - share), 12) < SMALL_ARM:
            arm = "the model's" if share < SMALL_ARM else "the humans'"
            text = (
                f"{arm} arm has {min(share, 1 - share) * 100:g} % of units, so a gain or loss is"
                " found slowly; write 10% or more of each"
            )
            yield PolicyWarning(f"stages[{index}]", text)
    yield from _list_takeover_warnings(policy)
    if not policy.charter.objective:
        yield PolicyWarning("charter", "lacks the objective that the outcomes measure")
