"""Outcomes with a value, such as a profit, and what gates and guards ask of them.

A stage divides its units at random between an arm of the model and one of people. What the model
brings beyond people is the gain, in the outcome's unit.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from rollout.kernel.policy_keys import Key

DECIDES, PROPOSES = "decides", "proposes"
"""What the model does in its arm: other questions, so their evidence is kept apart."""


@dataclass(frozen=True, slots=True)
class OutcomeRule:
    """A value that becomes known after a case, such as its profit."""

    id: Annotated[str, Key("Name", "Name, as records write it.", "profit")]
    low: Annotated[
        float, Key("Number", "Lower end; a lower value counts as this.", "-20", name="from")
    ]
    high: Annotated[
        float, Key("Number", "Upper end; a higher value counts as this.", "60", name="to")
    ]
    closes: Annotated[
        timedelta,
        Key(
            "PositiveDuration",
            "How long after a case its value may arrive; then it is missing.",
            "14d",
        ),
    ]
    unit: Annotated[str, Key("NonEmptyText", "Unit of the value, such as EUR.", name="in")] = ""
    better: Annotated[
        str,
        Key(
            "",
            "Whether more or less is better. With `less` a decrease is a gain.",
            choices=("more", "less"),
        ),
    ] = "more"
    missing_at_most: Annotated[
        float,
        Key(
            "Share",
            "A larger share of units without a value holds gates on its gain.",
        ),
    ] = 0.02

    @property
    def more_is_better(self) -> bool:
        """Return whether a higher value is better."""
        return self.better == "more"

    @property
    def span(self) -> float:
        """Return the width of the range."""
        return self.high - self.low

    @property
    def definition(self) -> str:
        """Return what decides a unit's score: range, direction and deadline."""
        return f"{self.low!r} {self.high!r} {self.better} {self.closes.total_seconds():.0f} s"

    def format_amount(self, value: float) -> str:
        """Return a value or gain with its unit: `+0.84 EUR`, `+1,230 EUR`."""
        digits = f"{value:+,.0f}" if abs(value) >= 1000 else f"{value:+.3g}"
        return f"{digits} {self.unit}".rstrip()


def describe_objective(objective: str, outcomes: Iterable[OutcomeRule]) -> str:
    """Return an objective with the outcomes that measure it; "" if none is stated."""
    measures = [
        f"{outcome.id} ({outcome.unit + ', ' if outcome.unit else ''}{outcome.better} is better)"
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
