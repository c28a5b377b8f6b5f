"""The measures: shares and worths of decided units, and what guards alone watch.

A worth is a cost, what an outcome brings, or actions taken more often. Guards alone watch moves of
shares, harms, devices and silence.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

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


LATE_SHARE: Final = 0.05
"""A 95th percentile is above a threshold if a larger share is."""
MIN_AUDITS: Final = 20
"""With fewer audits the share of overdue ones would trip healthy cells."""
WEEK: Final = timedelta(days=7)
SHORT_SPAN: Final = timedelta(minutes=15)


class DriftMeasure(Measure):
    """How far a value's share of cases, or a human decision's, has moved."""

    name = "drift"
    definition = (
        "how far a value's share of cases (without `slice`: a human decision's) may have moved"
    )
    against = "cases speak for {subject}"
    example = "10%"
    unit = ThresholdUnit.SHARE
    guard_effect = "report"
    watch = Watch.LABELS
    needs_lever = True
    has_slices = True
    has_floors = False
    has_sets = False
    unnamed_subject = "decisions"


class Harm(Measure):
    """Outcomes that name a harm."""

    name = "harm"
    definition = "outcomes that name a harm"
    against = "outcomes name {subject}"
    example = "0"
    unit = ThresholdUnit.COUNT
    guard_effect = "shadow"
    guard_span = WEEK
    watch = Watch.HARMS
    subject = Subject.HARM
    has_version = False
    reads_more = True
    is_longer_stricter = True

    def describe_against(self, subject: str) -> str:
        """Return that outcomes name the harm, or any."""
        return super().describe_against(subject or "a harm")


class RecordMeasure(Measure):
    """A share of bad records, which a test watches."""

    unit = ThresholdUnit.PART
    watch = Watch.RECORDS


class Missing(RecordMeasure):
    """The share of closed units without a decision."""

    name = "missing"
    against = "units closed without a decision"
    gate_hint = "write evidence.missing_at_most"
    definition = "closed units without a decision"
    example = "10%"
    guard_effect = "report"
    guard_span = WEEK
    is_operational = True
    is_of_cell = True


class Unaudited(RecordMeasure):
    """The share of overdue audits."""

    name = "unaudited"
    against = "audits overdue"
    definition = "overdue audits, from 20 sampled on"
    example = "10%"
    guard_effect = "one-stage"
    guard_span = WEEK
    min_records = MIN_AUDITS
    reads_audits = True


class AnswerMeasure(RecordMeasure):
    """A share of bad answers of a site's devices."""

    guard_effect = "suspend"
    guard_span = SHORT_SPAN
    is_operational = True
    is_of_site = True
    reads_more = True


class LatencyMeasure(AnswerMeasure):
    """The 95th percentile of the time to answer."""

    name = "latency_p95"
    against = "answers were too slow"
    definition = "time to answer, 95th percentile"
    example = "20s"
    unit = ThresholdUnit.SECONDS
    reads_latency = True

    def find_share_limit(self, threshold: float) -> float:
        """Return the share that may be slower, whatever the threshold."""
        return LATE_SHARE

    def describe_counted(self, subject: str, threshold_text: str) -> str:
        """Return which answers are slow."""
        return f"answers slower than {threshold_text}"


class Failures(AnswerMeasure):
    """The share of failed answers."""

    name = "failures"
    against = "answers failed"
    definition = "failed answers"
    example = "2%"


class HeartbeatMeasure(Measure):
    """The open time since a site's last case or sign of life, whatever version acts there."""

    name = "heartbeat"
    definition = "open time since the site's last case or sign of life"
    against = "open hours without a sign of life"
    example = "2h"
    unit = ThresholdUnit.SECONDS
    guard_effect = "suspend"
    watch = Watch.SIGNS
    reads_more = True
    is_operational = True
