"""Measures of decided units: shares of successes, and what gives a unit a worth.

That is a cost, what an outcome brings, or actions taken more often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollout.kernel.measures.base import (
    Expectation,
    Measure,
    Statistic,
    Subject,
    ThresholdUnit,
    Watch,
)
from rollout.kernel.units import MISSING, SILENT, split_label_set, split_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rollout.kernel.measures.base import Condition, CountedLevers
    from rollout.kernel.units import UnitClass


class ShareMeasure(Measure):
    """A share of units.

    Missing units are failures, so that silence never widens a cell.
    """

    unit = ThresholdUnit.SHARE
    guard_effect = "one-stage"
    watch = Watch.UNITS
    statistic = Statistic.SHARE
    needs_lever = True

    def is_success(self, unit: UnitClass, label: str, *, many: bool) -> bool | None:
        """Return whether a unit is a success, as both sides agree; None if it isn't counted.

        Args:
            unit: of the condition's lever.
            label: of the condition; "" for none.
            many: whether the lever's answers are sets of labels.
        """
        return unit.agrees

    def find_column(
        self, condition: Condition, unit: UnitClass, policy: CountedLevers
    ) -> int | None:
        """Return 0 for a success, 1 for a failure."""
        if unit.lever != (condition.lever or policy.whole_unit_lever):
            return None
        lever = policy.levers_by_id.get(unit.lever)
        many = lever is not None and lever.many
        succeeded = self.is_success(unit, condition.label or "", many=many)
        return None if succeeded is None else int(not succeeded)

    def expect(self, agreement: float | None, label_share: float | None) -> Expectation:
        """Return that all units count."""
        return Expectation(1.0, agreement)


class Agreement(ShareMeasure):
    """The share of units in which model and human agree."""

    name = "agreement"
    definition = "units with the same answer on all levers, or on one"
    against = "blind decisions disagree"
    example = "95%"
    at_least = True
    for_gate = True
    has_slices = True
    has_planted = True
    starts_shares = True
    covers_all_labels = True
    is_rated = True
    counts_missing = True


class LabelMeasure(ShareMeasure):
    """A share of the units to which one side, or both, gave a label."""

    example = "90%"
    at_least = True
    for_gate = True
    subject = Subject.LABEL
    is_rated = True

    def expect(self, agreement: float | None, label_share: float | None) -> Expectation:
        """Return the label's share of the units, agreed on as all labels are."""
        return Expectation(label_share, agreement)


class Recall(LabelMeasure):
    """Of the units that humans give a label, the share that the model gives it, too.

    Units without a decision don't count, since nobody knows their label.
    """

    name = "recall"
    definition = "of the units that humans give the label, those that the model gives it too"
    against = "blind decisions for {subject} were predicted otherwise"
    has_planted = True

    def is_success(self, unit: UnitClass, label: str, *, many: bool) -> bool | None:
        """Return whether the model found a label that the human gave."""
        if not many:
            return unit.agrees if unit.decided == label else None
        human, model = split_pair(unit.decided, unit.predicted)
        is_decided = human != MISSING and label in split_label_set(human)
        return label in split_label_set(model) if is_decided else None


class Precision(LabelMeasure):
    """Of the units that the model gives a label, the share that humans give it, too."""

    name = "precision"
    definition = "of the units that the model gives the label, those that humans give it too"
    against = "predictions of {subject} disagree with the blind decision"
    counts_missing = True

    def is_success(self, unit: UnitClass, label: str, *, many: bool) -> bool | None:
        """Return whether the human gave a label that the model gave."""
        if unit.predicted in SILENT:
            return False
        if not many:
            return unit.agrees if unit.predicted == label else None
        human, model = split_pair(unit.decided, unit.predicted)
        is_decided = human != MISSING and label in split_label_set(human)
        return is_decided if label in split_label_set(model) else None


class Override(ShareMeasure):
    """The share of units whose reviewer saw the proposed answer and chose another one."""

    name = "override"
    definition = "reviewers who saw the proposed answer and chose another one, or took over"
    against = "assisted decisions override the model"
    example = "10%"
    reads_assisted = True


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
        is_undecided = unit.decided == MISSING
        if lever is None or lever.many or is_undecided or condition.action not in lever.actions:
            return None
        model_acts = lever.find_action(unit.predicted) == condition.action
        human_acts = lever.find_action(unit.decided) == condition.action
        return 2 if model_acts == human_acts else int(human_acts)
