"""Evaluation of a condition on gain: both arms, missing outcomes, evidence and bound."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, floor, log, log10
from typing import TYPE_CHECKING, Final, TypeAlias

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
MAX_EXPONENT: Final = 700.0
LOST_ARMS: Final = ", not the arms that were sampled"
_AMOUNT: Final = r"[+-][\d,]+(?:\.\d+)?(?:e[+-]?\d+)?"
_NUMBER: Final = r"-?(?:inf|\d+(?:\.\d+)?)"
GAIN_PATTERN: Final = re.compile(
    rf": (?:(?P<gain>{_AMOUNT})(?: .*?)? a unit so far"
    rf"(?:, at least (?P<bound>{_AMOUNT})(?: .*?)? at every look)?; )?"
    r"(?P<model>\d+) by the model, (?P<people>\d+) by people, (?P<missing>\d+) without outcome"
    rf"(?P<lost>{re.escape(LOST_ARMS)} \(E [\d.,e+]+\))?"
    rf", log E (?P<log_e>{_NUMBER}) of (?P<needed>{_NUMBER}) \(risk [0-9.e+-]+\)",
    re.ASCII,
)
"""A stored reading of a gain after its condition, as `ConditionReading.format` writes it."""


def find_reading_amounts(reading: str) -> str:
    """Return the gain and its bound in a stored reading; "" without any.

    >>> counts = "31 by the model, 30 by people, 0 without outcome"
    >>> ending = f"; {counts}, log E 3.1 of 3.0 (risk 0.05)"
    >>> find_reading_amounts(f"gain of margin at least 0 EUR: +5.1 EUR a unit so far{ending}")
    '+5.1 EUR a unit so far'
    """
    match = GAIN_PATTERN.search(reading)
    if match is None or match["gain"] is None:
        return ""
    return match[0].removeprefix(": ").partition("; ")[0]


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

    def format(self) -> str:
        """Return the gain, its bound and the counts as the ledger stores them.

        `+5.1 EUR a unit so far, at least +1.2 EUR at every look; 31 by the model, …`
        """
        model, people, missing = self.counts
        lost = f"{LOST_ARMS} (E {exp(min(self.arm_log_e, MAX_EXPONENT)):.3g})" * self.lacks_units
        counts = f"{model} by the model, {people} by people, {missing} without outcome{lost}"
        return f"{self._format_amounts()}; {counts}" if self.estimate is not None else counts

    def _format_amounts(self) -> str:
        outcome, bound = self.condition.population.outcome, self.bound
        estimate_text = f"{outcome.format_amount(self.estimate or 0.0)} a unit so far"
        if bound is None:
            return estimate_text
        lowest = outcome.format_amount(round_down(bound))
        return f"{estimate_text}, at least {lowest} at every look"


@dataclass(frozen=True, slots=True)
class GainFigures:
    """The figures of a stored reading of a gain, rounded as there.

    `counts` are as in `GainReading`.
    """

    estimate: float | None
    bound: float | None
    counts: tuple[int, int, int]
    is_met: bool


def parse_gain_figures(text: str) -> GainFigures | None:
    """Return the figures of a stored reading after its condition; None if it has none."""
    match = GAIN_PATTERN.fullmatch(text)
    if match is None:
        return None
    return GainFigures(
        estimate=_read_amount(match["gain"]),
        bound=_read_amount(match["bound"]),
        counts=(int(match["model"]), int(match["people"]), int(match["missing"])),
        is_met=not match["lost"] and float(match["log_e"]) >= float(match["needed"]),
    )


def _read_amount(text: str | None) -> float | None:
    return None if text is None else float(text.replace(",", ""))


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
