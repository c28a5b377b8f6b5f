"""Outcomes with a value, such as a profit, and what gates and guards ask of them.

A stage divides its units at random between an arm of the model and one of people. What the model
brings beyond people is the gain, in the outcome's unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

DECIDES, PROPOSES = "decides", "proposes"
"""What the model does in its arm: other questions, so their evidence is kept apart."""


@dataclass(frozen=True, slots=True)
class OutcomeRule:
    """An outcome with a value: its range, its better direction and its deadline.

    Attributes:
        low, high: the range; values outside count as its ends.
        unit: unit of the value, such as EUR; may be empty.
        more_is_better: whether a higher value is better.
        closes: how long after a case its value may arrive.
        missing_at_most: share of units without a value above which gates are held.
    """

    id: str
    low: float
    high: float
    unit: str
    more_is_better: bool
    closes: timedelta
    missing_at_most: float

    @property
    def span(self) -> float:
        """Return the width of the range."""
        return self.high - self.low

    @property
    def definition(self) -> str:
        """Return what decides a unit's score: range, direction and deadline."""
        better = "more" if self.more_is_better else "less"
        return f"{self.low!r} {self.high!r} {better} {self.closes.total_seconds():.0f} s"

    def format_amount(self, value: float) -> str:
        """Return a value or gain with its unit: `+0.84 EUR`, `+1,230 EUR`."""
        digits = f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"
        return f"{digits} {self.unit}".rstrip()


def describe_objective(objective: str, outcomes: Iterable[OutcomeRule]) -> str:
    """Return an objective with the outcomes that measure it; "" if none is stated."""
    measures = [
        f"{outcome.id} ({outcome.unit + ', ' if outcome.unit else ''}"
        f"{'more' if outcome.more_is_better else 'less'} is better)"
        for outcome in outcomes
    ]
    if not (objective and measures):
        return objective
    return f"{objective.rstrip('.')}; measured by {', '.join(measures)}"


def find_outcome(outcomes: Iterable[OutcomeRule], outcome_id: str) -> OutcomeRule | None:
    """Return the outcome with an id, or None."""
    return next((outcome for outcome in outcomes if outcome.id == outcome_id), None)


def describe_unknown_outcome(name: str, outcomes: Sequence[str]) -> str:
    """Return the error for an outcome that the policy lacks."""
    listed = ", ".join(outcomes) or "none"
    return f"values have no {name!r}; the policy's outcomes: {listed}"
