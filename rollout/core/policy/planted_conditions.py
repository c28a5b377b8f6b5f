"""Gate conditions about planted cases, which are a population of their own.

A user plants a case to see what a model does with it: a scenario, or a rare event. How often such
cases come is the user's choice, so no figure about the cases that occur counts them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.levers import Lever
from rollout.kernel.label_sets import split_label_set
from rollout.kernel.measures import Condition
from rollout.kernel.units import MISSING, UnitClass

PLANTED: Final = "planted"
PLANTED_TRACK: Final = "planted"  # of counted units
PLANTED_TERMS: Final = (
    "Of planted cases means: not of those that occur, and missing decisions count against it."
)
"""What the words `of planted cases` in a condition mean, for one place of a page."""


@dataclass(frozen=True, slots=True)
class PlantedCondition(Condition):
    """A condition on the planted cases alone."""

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Return what is measured and of what, without the threshold."""
        return (f"{self.measure} of {PLANTED}", self.label, self.lever)

    def __str__(self) -> str:
        """Return the condition as text.

        >>> from rollout.kernel.measures import MEASURES
        >>> str(PlantedCondition(MEASURES["recall"], 0.95, label="bear"))
        'recall of bear of planted cases at least 95 %'
        """
        label = f" of {self.label}" if self.label else ""
        lever = f" ({self.lever})" if self.lever else ""
        return f"{self.measure}{label}{lever} of planted cases at least {self.threshold_text}"


def is_missed(condition: Condition, unit_class: UnitClass, lever: Lever | None) -> bool:
    """Return whether a planted unit without a decision is a miss.

    It is one unless the model has the label: whatever the human would have answered, the miss is
    the worst that it could be. So nobody gains by leaving a planted case unanswered.

    Args:
        condition: of recall; agreement counts each unit without a decision against the model.
        lever: of the unit; None for all together.
    """
    if not isinstance(condition, PlantedCondition) or unit_class.decided != MISSING:
        return False
    predicted = unit_class.predicted
    many = lever is not None and lever.many
    return condition.label not in (split_label_set(predicted) if many else {predicted})


def select_planted(conditions: Iterable[Condition]) -> tuple[PlantedCondition, ...]:
    """Return the conditions about planted cases."""
    return tuple(c for c in conditions if isinstance(c, PlantedCondition))


def select_natural(conditions: Iterable[Condition]) -> tuple[Condition, ...]:
    """Return the conditions about the cases that occur."""
    return tuple(c for c in conditions if not isinstance(c, PlantedCondition))
