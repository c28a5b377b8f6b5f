"""Units as measures count them, and the levers that their answers are for.

A unit has the prediction and the human decisions in one place. A set of labels is stored as text:
its labels sorted by code point and joined with `;`, so that equal sets are equal texts whatever the
order of the policy's labels. A stage divides its units at random between an arm of the model and
one of people. What the model brings beyond people is the gain, in the outcome's unit.

What a policy declares of levers and outcomes are plain frozen dataclasses.
`rollout.kernel.policy_files.sections` makes from them what reads the file and the JSON Schema, so
that values load no reader.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final, TypeVar

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

WHOLE_UNIT = "*"  # lever of the class over all levers, in policies with several
AGREE, DIFFER = "agree", "differ"  # `predicted` in such a class, and for numbers
MISSING = ""  # `decided` of a unit without a blind decision
FAILED, LATE, OUTSIDE = "(failed)", "(late)", "(outside)"  # `predicted` without a valid label
AFTER_DECISION = "(after the decision)"
AFTER_CLOSING = "after the unit closed"  # why a row is no unit
NOT_PREDICTED, LATE_CASE = "(not predicted)", "(late case)"
CASELESS = "(no case)"
CASELESS_UNIT: Final = "{} without a case"
"""The key of a unit of one case where units are episodes, by the key of its case or clock span: of
one that only decisions place, or for guards of one that joined an episode already decided."""
UNDECIDED = "without a decision"
"""Why a unit is missing that its version predicted in time."""
SILENT_REASONS: Mapping[str, str] = MappingProxyType(
    {
        AFTER_DECISION: "predicted after the decision",
        NOT_PREDICTED: "not predicted",
        LATE_CASE: "case received late",
        CASELESS: "a decision without a case",
    }
)
"""Why units are missing although they may be decided, in words, by their `predicted`."""
SILENT = frozenset(SILENT_REASONS)
UNUSABLE = frozenset({FAILED, LATE, OUTSIDE}) | SILENT
"""`predicted` of all units without an answer that may count."""


@dataclass(frozen=True, slots=True)
class UnitSelection:
    """Units to look at; a field with its default doesn't narrow them.

    Attributes:
        attributes: those that their cases have.
        since, until: times of their cases, `until` exclusive.
    """

    version: str | None = None
    site: str | None = None
    window: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnitClass:
    """Prediction, decisions and cost level of a unit, as measures count it.

    `attribute_values` is the stored text of `rollout.kernel.policy.familiarity`; no measure reads
    it. `slices` holds the values of the attributes that conditions slice by, as JSON. `band` is how
    many confidence floors above the lowest one the confidence reaches.
    """

    lever: str
    predicted: str
    decided: str
    second: str = ""
    level: int = 0
    attribute_values: str = ""
    slices: str = ""
    band: int = 0

    @property
    def is_missing(self) -> bool:
        """Return whether the unit is no evidence of both sides: undecided, or not predicted."""
        return self.decided == MISSING or self.predicted in SILENT

    @property
    def loss_reason(self) -> str:
        """Return why the unit is missing, or ""."""
        undecided = UNDECIDED if self.decided == MISSING else ""
        return SILENT_REASONS.get(self.predicted, undecided)

    @property
    def agrees(self) -> bool:
        """Return whether model and human agree; never in a missing unit."""
        return self.decided != MISSING and self.predicted == self.decided


SEPARATOR: Final = ";"
EMPTY_SET: Final = "(none of them)"
PAIR_SIGN: Final = " ≈ "
"""Joins two sets that differ and agree by their overlap."""
MAX_SET_BYTES: Final = 500
"""Of all labels of a lever together: indexes of PostgreSQL hold about 2,700 bytes a row."""
FULL_OVERLAP: Final = 1.0
SLACK: Final = 1e-9  # 4/5 is at least 80 % in binary too


def group_pairs(pairs: Iterable[tuple[KeyT, ValueT]]) -> dict[KeyT, list[ValueT]]:
    """Return the values by key; keys, and the values of each, keep their order.

    >>> group_pairs([("b", 1), ("a", 2), ("b", 3)])
    {'b': [1, 3], 'a': [2]}
    """
    groups: dict[KeyT, list[ValueT]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def format_label_set(labels: Iterable[str]) -> str:
    """Return the text of a set.

    >>> format_label_set(["puma", "nike"]), format_label_set([])
    ('nike;puma', '(none of them)')
    """
    return SEPARATOR.join(sorted(labels)) or EMPTY_SET


def split_label_set(text: str) -> frozenset[str]:
    """Return the labels of a set's text."""
    return frozenset() if text == EMPTY_SET else frozenset(text.split(SEPARATOR))


def read_label_set(answer: str | Sequence[str], labels: Collection[str], lever: str) -> str:
    """Return an answer as canonical text: a list, or labels joined with `;` in any order.

    Raises:
        ValueError: a label is unknown or repeated, or the answer is blank.
    """
    parts = _split_answer(answer)
    if "" in parts:
        text = f"{lever}: a label is blank; write `[]` or {EMPTY_SET} if none of them is right"
        raise ValueError(text)
    repeated = next((part for part in parts if parts.count(part) > 1), None)
    if repeated is not None:
        raise ValueError(f"{lever}: {repeated} is written twice; write each label once")
    unknown = next((part for part in parts if part not in labels), None)
    if unknown is not None:
        raise ValueError(
            f"{lever}: {unknown} is none of its labels ({', '.join(labels)}); correct it, or add it"
            " to the policy"
        )
    return format_label_set(parts)


def _split_answer(answer: str | Sequence[str]) -> list[str]:
    if not isinstance(answer, str):
        return list(answer)
    text = answer.strip()
    return [] if text == EMPTY_SET else [part.strip() for part in text.split(SEPARATOR)]


def join_labels(answer: str | Sequence[str]) -> str:
    """Return the text of a list as it was sent, sorted but unchecked; a text stays.

    Raises:
        ValueError: a label of the list could be read as several, or as none.
    """
    if isinstance(answer, str):
        return answer
    joined = next((label for label in answer if SEPARATOR in label), None)
    if joined is not None:
        raise ValueError(f"{joined!r} holds {SEPARATOR!r}; send each label by itself")
    empty = next((label for label in answer if label.strip() in {"", EMPTY_SET}), None)
    if empty is not None:
        raise ValueError(f"{empty!r} is no label; send [] if none of them is right")
    return format_label_set(answer)


def is_label_set(text: str, labels: Collection[str]) -> bool:
    """Return whether a text is the canonical text of a set of these labels."""
    parts = split_label_set(text)
    return parts <= set(labels) and format_label_set(parts) == text


def compute_overlap(first: Collection[str], second: Collection[str]) -> float:
    """Return the Jaccard index of two sets, 1 if both are empty.

    >>> compute_overlap({"a", "b"}, {"b", "c"}), compute_overlap(set(), set())
    (0.3333333333333333, 1.0)

    Source: Jaccard, New Phytologist 11 (1912) 37.
    """
    union = set(first) | set(second)
    return len(set(first) & set(second)) / len(union) if union else 1.0


def do_sets_agree(first: str, second: str, overlap: float) -> bool:
    """Return whether the sets of two texts overlap at least as much as required."""
    if first == second or overlap >= FULL_OVERLAP:
        return first == second
    return compute_overlap(split_label_set(first), split_label_set(second)) >= overlap - SLACK


def split_pair(decided: str, predicted: str) -> tuple[str, str]:
    """Return the sets of human and model of a unit class; sets in `a ≈ b` differ and agree."""
    human, sign, model = decided.partition(PAIR_SIGN)
    return (human, model) if sign else (decided, predicted)


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
    return f"values have no {name!r}; the policy's outcomes: {', '.join(outcomes) or 'none'}"


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
