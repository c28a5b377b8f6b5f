"""Measures that give a unit a worth: cost, what an outcome brings, actions taken more often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollout.kernel.measures.base import Measure, Statistic, Subject, ThresholdUnit, Watch
from rollout.kernel.units import MISSING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.kernel.measures.base import Condition, CountedLevers
    from rollout.kernel.units import UnitClass


class Cost(Measure):
    """The mean cost of a difference between model and human; missing units have the largest."""

    name = "cost"
    definition = "mean cost of what the model would have done"
    against = "units have a cost"
    example = "0.3"
    unit = ThresholdUnit.COST
    guard_effect = "one-stage"
    watch = Watch.UNITS
    statistic = Statistic.MEAN
    for_gate = True
    starts_shares = True
    is_rated = True

    def get_width(self, cost_levels: int) -> int:
        """Return one column for each level."""
        return cost_levels

    def list_columns_against(self, width: int) -> Sequence[int]:
        """Return the levels above 0."""
        return range(1, width)

    def weigh_losses(self, cost_shares: Sequence[float]) -> Sequence[float]:
        """Return the levels as shares of the largest cost."""
        return cost_shares

    def find_column(
        self, condition: Condition, unit: UnitClass, policy: CountedLevers
    ) -> int | None:
        """Return the unit's level."""
        return unit.level if unit.lever == (condition.lever or policy.whole_unit_lever) else None


class GainMeasure(Measure):
    """What an outcome brings a unit in the model's arm beyond the people's arm."""

    name = "gain"
    definition = (
        "what an outcome brings a unit in the model's arm beyond the people's arm, in its unit"
    )
    against = "units of both arms"
    example = "0"
    unit = ThresholdUnit.VALUE
    guard_effect = "one-stage"
    watch = Watch.OUTCOMES
    statistic = Statistic.DIFFERENCE
    at_least = True
    for_gate = True
    subject = Subject.OUTCOME
    has_floors = False

    def widen(self, threshold: float, *, largest: float, factor: float) -> float:
        """Return the same threshold: a stage whose gain is gone has no reason."""
        return threshold


class ActionChange(Measure):
    """How much more often the model takes an action than humans on the same units, per 100."""

    name = "action_change"
    definition = (
        "how much more often the model takes the action than humans on the same units, per 100"
    )
    against = "cases get {subject} from the model only"
    example = "2"
    unit = ThresholdUnit.PER_HUNDRED
    guard_effect = "report"
    watch = Watch.UNITS
    statistic = Statistic.EXCESS
    subject = Subject.ACTION
    needs_lever = True
    has_sets = False

    def get_width(self, cost_levels: int) -> int:
        """Return three columns: the model alone, the human alone, both or neither."""
        return 3

    def list_columns_against(self, width: int) -> Sequence[int]:
        """Return what the model alone did."""
        return (0,)

    def weigh_losses(self, cost_shares: Sequence[float]) -> Sequence[float]:
        """Return a whole loss for the model alone, half of one where both did the same."""
        return (1.0, 0.0, 0.5)

    def find_column(
        self, condition: Condition, unit: UnitClass, policy: CountedLevers
    ) -> int | None:
        """Return who took the action; None without a decision, and for numbers and sets."""
        lever = policy.levers_by_id.get(unit.lever)
        if lever is None or lever.many or unit.decided == MISSING:
            return None
        if condition.action not in lever.actions:
            return None
        model_acts = lever.find_action(unit.predicted) == condition.action
        human_acts = lever.find_action(unit.decided) == condition.action
        return 2 if model_acts == human_acts else int(human_acts)
