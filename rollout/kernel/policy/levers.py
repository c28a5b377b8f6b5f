"""Levers: the decision variable, each answer's action, and the costs of errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated

from rollout.kernel.units import (
    FULL_OVERLAP,
    Key,
    do_sets_agree,
    is_label_set,
    split_label_set,
    split_pair,
)

SLACK = 1e-9  # relative: decimal fractions are not exact in binary


@dataclass(frozen=True, slots=True)
class Margin:
    """A distance between two numbers, absolute or relative to the human's number."""

    amount: float
    relative: bool = False

    def compute_distance(self, number: float) -> float:
        """Return the distance in the lever's unit, for the human's `number`.

        It is slightly larger than written, so that 10.05 lies within 0.05 of 10 in binary too.
        """
        return (self.amount * abs(number) if self.relative else self.amount) + SLACK * abs(number)


@dataclass(frozen=True, slots=True)
class CostRule:
    """One row of a lever's costs; the first that fits counts.

    `did` and `right` are actions; None is any.
    """

    cost: Annotated[float, Key("CostValue", "Cost, in the charter's cost_in.", "1")]
    did: Annotated[str | None, Key("NonEmptyText", "Action of the model. Default: any.")] = None
    right: Annotated[str | None, Key("NonEmptyText", "Action that was right. Default: any.")] = None
    under: Annotated[Margin | None, Key("Distance", "The model is lower by more than this.")] = None
    over: Annotated[Margin | None, Key("Distance", "The model is higher by more than this.")] = None
    off: Annotated[Margin | None, Key("Distance", "The model differs by more than this.")] = None

    @property
    def is_of_any(self) -> bool:
        """Return whether it is the cost of each wrong answer."""
        return self == CostRule(self.cost)


DEFAULT_COSTS = (CostRule(1.0),)


@dataclass(frozen=True, slots=True)
class Number:
    """The range of a lever that is a number."""

    unit: Annotated[str, Key("NonEmptyText", "Unit of the number.", "EUR", name="in")]
    low: Annotated[float, Key("Number", "Smallest number acted on.", "1", name="from")]
    high: Annotated[
        float,
        Key("Number", "Largest number acted on; a larger one disagrees.", "500", name="to"),
    ]
    tolerance: Annotated[
        Margin,
        Key(
            "Distance",
            "Model and human agree within it: 5% of the human's number, or plain.",
            "5%",
        ),
    ]


@dataclass(frozen=True, slots=True)
class Lever:
    """One thing that is decided for each case.

    A decision variable: labels with their actions, sets of labels, or a number. Sets agree if their
    Jaccard index is at least `overlap`; a set is its own action. `actions` are in the labels'
    order; without `named_actions` each label is its own.
    """

    id: Annotated[str, Key("Name", "Name of the lever.", "alarm")]
    labels: Annotated[
        tuple[str, ...],
        Key(
            "Label",
            "The possible answers, in a fixed order; append new ones.",
            is_filled=True,
        ),
    ] = ()
    actions: tuple[str, ...] = ()
    number: Annotated[Number | None, Key("", "Instead of labels: a number's range.")] = None
    costs: Annotated[
        tuple[CostRule, ...],
        Key(
            "",
            "Cost of a wrong action; the first row that fits. Default: 1 for any.",
            is_filled=True,
        ),
    ] = DEFAULT_COSTS
    answer_within: Annotated[
        timedelta | None,
        Key(
            "PositiveDuration",
            "How long an answer is of use; later ones disagree. Default: no limit.",
        ),
    ] = None
    unanswered: Annotated[
        str | None,
        Key(
            "NonEmptyText",
            "Action if no human answers in that time. Both keys or neither.",
        ),
    ] = None
    many: Annotated[bool, Key("Flag", "Whether an answer is a set of the labels.")] = False
    overlap: Annotated[
        float,
        Key(
            "Overlap",
            "With many: sets agree if they have this share of all their labels in common.",
        ),
    ] = FULL_OVERLAP
    named_actions: Annotated[
        Mapping[str, str],
        Key(
            "NonEmptyText",
            "The action that each label leads to. Default: the label itself.",
            name="actions",
        ),
    ] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.actions:
            actions = tuple(self.named_actions.get(label, label) for label in self.labels)
            object.__setattr__(self, "actions", actions)

    @property
    def has_single_labels(self) -> bool:
        """Return whether an answer is one label."""
        return self.number is None and not self.many

    def find_action(self, label: str) -> str | None:
        """Return the label's action, None if the lever lacks the label."""
        if self.many:
            return label if is_label_set(label, self.labels) else None
        return self.actions[self.labels.index(label)] if label in self.labels else None

    def has_label(self, answer: str, label: str) -> bool:
        """Return whether a human's counted answer is the label, or a set with it."""
        if self.many:
            return label in split_label_set(split_pair(answer, "")[0])
        return answer == label

    def compute_cost(self, did: str, right: str) -> float:
        """Return the cost of action `did` where `right` was right; 0 if equal.

        The first matching row counts. Without one the cost is the largest: a loaded policy covers
        each pair, so this happens only for a label that the lever lacks.
        """
        if did == right or (self.many and do_sets_agree(right, did, self.overlap)):
            return 0.0
        rules = (
            candidate
            for candidate in self.costs
            if candidate.did in (None, did) and candidate.right in (None, right)
        )
        rule = next(rules, None)
        return self.largest_cost if rule is None else rule.cost

    def compute_number_cost(self, model: float, human: float) -> float:
        """Return the cost of the model's number against the human's."""
        assert self.number is not None  # noqa: S101 - a label lever has no numbers to compare
        gap = model - human
        if abs(gap) <= self.number.tolerance.compute_distance(human):
            return 0.0
        return next((rule.cost for rule in self.costs if _does_rule_apply(rule, gap, human)), 0.0)

    @property
    def largest_cost(self) -> float:
        """Return the highest cost of one wrong answer."""
        return max((c.cost for c in self.costs), default=0.0)

    @property
    def cost_levels(self) -> tuple[float, ...]:
        """Return the distinct costs, 0 included, ascending."""
        return tuple(sorted({0.0, *(c.cost for c in self.costs)}))


def _does_rule_apply(rule: CostRule, gap: float, human: float) -> bool:
    exceeded = (
        rule.under is not None and -gap > rule.under.compute_distance(human),
        rule.over is not None and gap > rule.over.compute_distance(human),
        rule.off is not None and abs(gap) > rule.off.compute_distance(human),
    )
    return any(exceeded) or (rule.under is rule.over is rule.off is None)


def build_even_levels(largest: float, count: int) -> tuple[float, ...]:
    """Return `count` costs in equal steps, from 0 to the largest."""
    return tuple(largest * step / (count - 1) for step in range(count))
