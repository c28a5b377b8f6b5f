"""Outcomes with a value, such as a profit, and what gates and guards ask of them.

A stage divides its units at random between an arm of the model and one of people. What the model
brings beyond people is the gain, in the outcome's unit.

What the declaration of a part of a policy says of its keys in the file.

The parts are plain frozen dataclasses. `rollout.kernel.policy_files.sections` makes from them what
reads the file and the JSON Schema, so that values load no reader.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any


@dataclass(frozen=True, slots=True)
class Key:
    """What a field is in the file; a field without one is computed.

    Its default is the field's. One that can't be written, such as None, is no default of the file.

    Attributes:
        kind: name of its type in `rollout.kernel.policy_files.fields`; of a list or mapping that of
            its values; "" for sections and choices.
        description: for schema and reference.
        example: how it may be written.
        name: the key, where the field has another name.
        choices: the texts that it may be.
        is_enough: whether the row may be the text of this key alone.
        is_required: whether the file must have it although the field has a default.
        is_filled: whether a list or mapping must have something in it.
        written: its default in the file where that differs, in value or in form.
    """

    kind: str
    description: str
    example: str = ""
    name: str = ""
    choices: tuple[str, ...] = ()
    is_enough: bool = False
    is_required: bool = False
    is_filled: bool = False
    written: Any = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Says that the keys of a field, a section itself, stand in the row that has the field."""

    keys: tuple[str, ...]


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
