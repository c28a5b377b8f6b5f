"""Questions of a review, their answers and keyboard keys."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rollout.core.policy.levers import Lever, Number
from rollout.kernel.label_sets import EMPTY_SET, split_label_set
from rollout.reports.text.formatting import capitalize_first, format_quantity

UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY = "u", "z", ".", "?"
RESERVED_KEYS: Final = frozenset({UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY})
"""Keys with the same meaning on every page."""

MAX_LETTER_LABELS: Final = 8
"""With more labels, the first ten have digits instead of letters."""

DIGITS: Final = "1234567890"


def assign_keys(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a key for each label, "" if none is left.

    A label of one letter or digit is its own key.
    """
    own_keys = [_get_own_key(label) for label in labels]
    keys: list[str] = []
    for label, key in zip(labels, own_keys, strict=True):
        if key and own_keys.count(key) == 1:
            keys.append(key)
            continue
        candidates = DIGITS if len(labels) > MAX_LETTER_LABELS else [*_list_letters(label), *DIGITS]
        keys.append(_find_free_key(candidates, {*RESERVED_KEYS, *own_keys, *keys}))
    return tuple(keys)


def _get_own_key(label: str) -> str:
    """Return the key that a one-character label is itself, or ""."""
    lowered = label.lower()
    is_key = len(lowered) == 1 and lowered.isascii() and lowered.isalnum()
    return lowered if is_key and lowered not in RESERVED_KEYS else ""


def _list_letters(label: str) -> list[str]:
    """Return the label's characters that are single keys, in lower case."""
    return [
        lowered
        for character in label
        if character.isalnum() and len(lowered := character.lower()) == 1
    ]


def _find_free_key(candidates: Iterable[str], used_keys: set[str]) -> str:
    return next((key for key in candidates if key not in used_keys), "")


MAX_TITLE_LABELS = 4
"""With more labels, the question doesn't list them."""

UNSURE = "unsure"
EMPTY_SET_TEXT = "none of them"


@dataclass(frozen=True, slots=True)
class AnswerOption:
    """An answer: submitted value, text and key ("" for none)."""

    value: str
    text: str
    key: str


@dataclass(frozen=True, slots=True)
class LeverQuestion:
    """The question of one lever, answered by one of `choices`, by `many` of them, or by `number`.

    `position` counts from 1; element ids use it, since a lever's name may contain anything.
    """

    field: str
    position: int
    lever: str
    choices: tuple[AnswerOption, ...]
    number: Number | None
    many: bool = False

    @property
    def range(self) -> str:
        """Text of the allowed range."""
        if self.number is None:
            return ""
        return f"a number from {self.number.low:g} to {self.number.high:g} {self.number.unit}"


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """All questions about a case; `buttons`: pressing one button answers it."""

    title: str
    questions: tuple[LeverQuestion, ...]
    buttons: bool


def build_answer_form(levers: Sequence[Lever]) -> AnswerForm:
    """Return the questions for a policy's levers."""
    lever_labels = [_list_choices(lever) for lever in levers]
    keys = iter(assign_keys([text for labels in lever_labels for text in labels.values()]))
    questions = tuple(
        LeverQuestion(
            field=get_field_name(lever),
            position=position,
            lever=lever.id,
            choices=tuple(AnswerOption(label, text, next(keys)) for label, text in labels.items()),
            number=lever.number,
            many=lever.many,
        )
        for position, (lever, labels) in enumerate(zip(levers, lever_labels, strict=True), start=1)
    )
    is_single_choice = len(levers) == 1 and levers[0].has_single_labels
    return AnswerForm(describe_questions(questions), questions, buttons=is_single_choice)


def _list_choices(lever: Lever) -> Mapping[str, str]:
    """Return the texts of the choices by submitted value; a set can be empty."""
    no_label = {EMPTY_SET: EMPTY_SET_TEXT} if lever.many else {}
    return {**format_labels(lever.labels), **no_label}


def get_field_name(lever: Lever) -> str:
    """Return the field name of a lever, distinct also after policy changes."""
    return f"lever.{lever.id}"


def describe_questions(questions: Sequence[LeverQuestion]) -> str:
    """Return the question in one line."""
    if len(questions) != 1:
        return f"{format_quantity(len(questions), 'question')} about this case"
    (question,) = questions
    if question.number is not None:
        return f"{capitalize_first(question.lever)}: how many {question.number.unit}?"
    if question.many:
        return f"{capitalize_first(question.lever)}: which of these, if any?"
    if len(question.choices) <= MAX_TITLE_LABELS:
        texts = [choice.text for choice in question.choices]
        return capitalize_first(
            f"{', '.join(texts[:-1])} or {texts[-1]}?" if texts[1:] else f"{texts[0]}?"
        )
    return f"{capitalize_first(question.lever)}: which of these?"


def format_labels(labels: Sequence[str]) -> Mapping[str, str]:
    """Return labels with spaces for dashes, unless two would read the same.

    >>> format_labels(["no-bear", "bear"]), format_labels(["a-b", "a b"])
    ({'no-bear': 'no bear', 'bear': 'bear'}, {'a-b': 'a-b', 'a b': 'a b'})
    """
    readable = [" ".join(label.replace("-", " ").replace("_", " ").split()) for label in labels]
    is_unambiguous = all(readable) and len(set(readable)) == len(readable)
    return dict(zip(labels, readable if is_unambiguous else labels, strict=True))


def describe_answers(levers: Sequence[Lever], answers: Mapping[str, str | None]) -> str:
    """Format answers; "unsure" if there are none.

    Answers of levers that the policy no longer has stay as sent.
    """
    parts = [
        f"{lever_id}: {_describe_answer(levers, lever_id, value)}"
        if len(levers) > 1
        else _describe_answer(levers, lever_id, value)
        for lever_id, value in answers.items()
        if value is not None
    ]
    return ", ".join(parts) or UNSURE


def _describe_answer(levers: Sequence[Lever], lever_id: str, value: str) -> str:
    lever = next((lever for lever in levers if lever.id == lever_id), None)
    if lever is None:
        return value
    if lever.number is not None:
        return f"{value} {lever.number.unit}"
    texts = format_labels(lever.labels)
    if not lever.many:
        return texts.get(value, value)
    parts = [texts.get(label, label) for label in sorted(split_label_set(value))]
    return ", ".join(parts) or EMPTY_SET_TEXT
