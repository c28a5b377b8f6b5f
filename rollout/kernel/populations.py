"""Populations: the units that a condition is about, the second axis beside its measure.

Nobody outside this module asks which class a population is of: what differs is an ability here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Final

from rollout.kernel.units import MISSING, PROPOSES, OutcomeRule, UnitClass, split_label_set

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rollout.kernel.measures.base import AnsweringLever

PLANTED: Final = "planted"
PLANTED_TRACK: Final = PLANTED  # of counted units
PLANTED_TERMS: Final = (
    "Of planted cases means: not of those that occur, and missing decisions count against it."
)
"""What the words `of planted cases` in a condition mean, for one place of a page."""


class Population(ABC):
    """The units that a condition is about.

    Attributes:
        kind: its name in facts.
        is_planted: whether users plant its cases; how many is their choice, so no figure about the
            cases that occur counts them.
        has_gain: whether both arms of a stage are compared, by an `outcome`.
        sums_units: whether sums over the units that occur are what a gate reads.
        has_own_series: whether gates and guards read it by a series of its own.
        minimum: decided units that each value needs, in this attempt.
        attribute: of which each value must pass by itself; "" if all units count together.
        value: the value that a reading is about; None for all.
        arm: what the model does in its arm; "" without arms, or for whichever its stage has.
    """

    __slots__ = ()
    kind: ClassVar[str]
    is_planted: ClassVar[bool] = False
    has_gain: ClassVar[bool] = False
    sums_units: ClassVar[bool] = True
    has_own_series: ClassVar[bool] = False
    minimum: ClassVar[int] = 0
    attribute: str = ""
    value: str | None = None
    arm: str = ""

    @property
    def outcome(self) -> OutcomeRule:
        """Return the outcome by which the arms are compared.

        Raises:
            LookupError: it has no arms.
        """
        raise LookupError(f"{self!r} has no arms, so no outcome")

    @property
    @abstractmethod
    def suffix(self) -> str:
        """Return what follows a measure's name in a condition's key; "" for all units."""

    @property
    def subject(self) -> str:
        """Return what a condition is of, instead of its label; "" for its label."""
        return ""

    @property
    def remark(self) -> str:
        """Return which of the units, to follow a condition's subject; "" for all."""
        return ""

    @property
    def definition(self) -> tuple[str, ...]:
        """Return what else its units mean: another meaning starts evidence anew."""
        return ()

    def is_miss(self, label: str | None, unit: UnitClass, lever: AnsweringLever | None) -> bool:
        """Return whether a unit counts against recall of a label though nobody decided on it.

        Args:
            label: whose recall it is.
            unit: with or without a decision.
            lever: of the unit; None for all together.
        """
        return False


@dataclass(frozen=True, slots=True)
class AllUnits(Population):
    """The units that occur, together."""

    kind: ClassVar[str] = "all"

    @property
    def suffix(self) -> str:
        """Return nothing."""
        return ""


@dataclass(frozen=True, slots=True)
class EachValue(Population):
    """The units by the values of an attribute, each of which must pass by itself.

    A case without the attribute has the value `(none)`; a unit that was counted before the
    attribute was recorded has `(not recorded)`. Both are values like any other. Every value has the
    gate's whole risk: all of them must pass, so the chance that one passes wrongly needs no
    correction.
    """

    kind: ClassVar[str] = "each"
    has_own_series: ClassVar[bool] = True
    minimum: ClassVar[int] = 30
    attribute: str = field()
    value: str | None = None

    @property
    def suffix(self) -> str:
        """Return the attribute."""
        return f" by {self.attribute}"

    @property
    def subject(self) -> str:
        """Return the attribute or its value: `each group` or `group=new`."""
        return f"each {self.attribute}" if self.value is None else f"{self.attribute}={self.value}"


@dataclass(frozen=True, slots=True)
class PlantedUnits(Population):
    """The units of planted cases alone.

    A user plants a case to see what a model does with it: a scenario, or a rare event.
    """

    kind: ClassVar[str] = PLANTED
    is_planted: ClassVar[bool] = True
    sums_units: ClassVar[bool] = False

    @property
    def suffix(self) -> str:
        """Return what sets them apart."""
        return f" of {PLANTED}"

    @property
    def remark(self) -> str:
        """Return the same in words."""
        return " of planted cases"

    def is_miss(self, label: str | None, unit: UnitClass, lever: AnsweringLever | None) -> bool:
        """Return whether nobody decided on a unit, unless the model has the label.

        Whatever the human would have answered, the miss is the worst that it could be. So nobody
        gains by leaving a planted case unanswered.
        """
        has_sets = lever is not None and lever.many
        answers = split_label_set(unit.predicted) if has_sets else {unit.predicted}
        return unit.decided == MISSING and label not in answers


@dataclass(frozen=True, slots=True)
class BothArms(Population):
    """The units that a stage divides at random between an arm of the model and one of people."""

    kind: ClassVar[str] = "arms"
    has_gain: ClassVar[bool] = True
    sums_units: ClassVar[bool] = False
    has_own_series: ClassVar[bool] = True
    outcome: OutcomeRule = field()
    arm: str = ""

    @property
    def suffix(self) -> str:
        """Return nothing: the outcome is what its condition is of."""
        return ""

    @property
    def subject(self) -> str:
        """Return the outcome."""
        return self.outcome.id

    @property
    def remark(self) -> str:
        """Return which arm of the model, where it only proposes."""
        return " by proposals" if self.arm == PROPOSES else ""

    @property
    def definition(self) -> tuple[str, ...]:
        """Return what the outcome's values mean."""
        return (self.outcome.definition,)


ALL_UNITS: Final = AllUnits()
POPULATIONS: Final[Mapping[str, type[Population]]] = MappingProxyType(
    {kind.kind: kind for kind in (AllUnits, EachValue, PlantedUnits, BothArms)}
)
"""All populations by their name in facts."""
