"""Evaluation of a condition on gain: both arms, missing outcomes, evidence and bound."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import floor, log, log10
from typing import TYPE_CHECKING, TypeAlias

from rollout.core.late_modules import LateModule
from rollout.core.statistics.gain import (
    ArmUnits,
    compute_gain_interval,
    compute_gain_log_path,
    compute_gain_lower_bound,
    estimate_gain,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rollout.kernel.measures import Condition

else:
    np = LateModule("numpy")

BoolArray: TypeAlias = "NDArray[np.bool_]"
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


def is_gain_met(
    condition: Condition, units: ArmUnits, slots: NDArray[np.int64], risk: float
) -> BoolArray:
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
    result: BoolArray = np.concatenate([[False], is_met])[positions]
    return result
