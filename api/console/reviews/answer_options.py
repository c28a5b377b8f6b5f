"""What a reviewer is asked: the question, the answers that there are and the key of each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api.console.page.text import first_large
from rollout.core.policy.levers import Lever, Number
from rollout.reports.text.formatting import several

UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY = "u", "z", ".", "?"
TAKEN: Final = frozenset({UNSURE_KEY, UNDO_KEY, NOTE_KEY, HELP_KEY})
"""Keys that mean the same on every page, whatever the labels are."""

MOST_LETTERS: Final = 8
"""Up to so many labels have a letter of their own name; of more, the first ten have a digit."""

DIGITS: Final = "1234567890"


def keys_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a key for each label, "" for one that is left without.

    A label of one letter or digit is its own key: whoever reads a 3 presses 3, whatever else the
    policy lists.

    >>> keys_of(["bear", "no bear", "badger"]), keys_of(["unknown", "7"])
    (('b', 'n', 'a'), ('n', '7'))
    >>> keys_of(["zz", "b", "bb"]), keys_of(["zz", "1"])
    (('1', 'b', '2'), ('2', '1'))
    >>> "".join(keys_of(list("0123456789")))
    '0123456789'
    """
    own_keys = [_own(label) for label in labels]
    keys: list[str] = []
    for label, key in zip(labels, own_keys, strict=True):
        if key and own_keys.count(key) == 1:
            keys.append(key)
            continue
        candidates = DIGITS if len(labels) > MOST_LETTERS else [*_letters(label), *DIGITS]
        keys.append(_first(candidates, {*TAKEN, *own_keys, *keys}))
    return tuple(keys)


def _own(label: str) -> str:
    """Return the key that a label is by itself, "" where it is longer or the key is taken."""
    lowered = label.lower()
    is_key = len(lowered) == 1 and lowered.isascii() and lowered.isalnum()
    return lowered if is_key and lowered not in TAKEN else ""


def _letters(label: str) -> list[str]:
    """Return the characters of a label that are one key each, in small letters."""
    return [
        lowered
        for character in label
        if character.isalnum() and len(lowered := character.lower()) == 1
    ]


def _first(wanted: Iterable[str], used: set[str]) -> str:
    return next((key for key in wanted if key not in used), "")


FEW = 4
"""Up to so many labels stand in the question itself."""

UNSURE = "unsure"


@dataclass(frozen=True, slots=True)
class Choice:
    """An answer: what is sent, how it reads, and its key ("" for none)."""

    value: str
    says: str
    key: str


@dataclass(frozen=True, slots=True)
class Question:
    """One lever as it is asked: `field` is its name in the form, `choices` or `number` answer it.

    `place` counts from 1: ids of a page are made of it, since a lever may be called anything.
    """

    field: str
    place: int
    lever: str
    choices: tuple[Choice, ...]
    number: Number | None

    @property
    def range(self) -> str:
        """What a number has to be."""
        if self.number is None:
            return ""
        return f"a number from {self.number.low:g} to {self.number.high:g} {self.number.unit}"


@dataclass(frozen=True, slots=True)
class Asked:
    """All that is asked about a case; `buttons`: one press of a button is the whole answer."""

    title: str
    questions: tuple[Question, ...]
    buttons: bool


def asked(levers: Sequence[Lever]) -> Asked:
    """Return what a policy's levers ask."""
    lever_labels = [words_of(lever.labels) for lever in levers]
    keys = iter(keys_of([text for labels in lever_labels for text in labels.values()]))
    questions = tuple(
        Question(
            field=field_of(lever),
            place=position,
            lever=lever.id,
            choices=tuple(Choice(label, text, next(keys)) for label, text in labels.items()),
            number=lever.number,
        )
        for position, (lever, labels) in enumerate(zip(levers, lever_labels, strict=True), start=1)
    )
    is_single_choice = len(questions) == 1 and questions[0].number is None
    return Asked(title_of(questions), questions, buttons=is_single_choice)


def field_of(lever: Lever) -> str:
    """Return the name of a lever's field: its own, so that a policy that changed mixes up none."""
    return f"lever.{lever.id}"


def title_of(questions: Sequence[Question]) -> str:
    """Return the question in one line."""
    if len(questions) != 1:
        return f"{several(len(questions), 'question')} about this case"
    (question,) = questions
    if question.number is not None:
        return f"{first_large(question.lever)}: how many {question.number.unit}?"
    if len(question.choices) <= FEW:
        texts = [choice.says for choice in question.choices]
        return first_large(
            f"{', '.join(texts[:-1])} or {texts[-1]}?" if texts[1:] else f"{texts[0]}?"
        )
    return f"{first_large(question.lever)}: which of these?"


def words_of(labels: Sequence[str]) -> Mapping[str, str]:
    """Return how labels read: with spaces for dashes, unless two of them would read the same.

    >>> words_of(["no-bear", "bear"]), words_of(["a-b", "a b"])
    ({'no-bear': 'no bear', 'bear': 'bear'}, {'a-b': 'a-b', 'a b': 'a b'})
    """
    readable = [" ".join(label.replace("-", " ").replace("_", " ").split()) for label in labels]
    is_unambiguous = all(readable) and len(set(readable)) == len(readable)
    return dict(zip(labels, readable if is_unambiguous else labels, strict=True))


def said(levers: Sequence[Lever], answers: Mapping[str, str | None]) -> str:
    """Say an answer in words; "unsure" where it holds none.

    Levers that the policy doesn't have any more are told as they were sent.
    """
    parts = [
        f"{lever_id}: {_one(levers, lever_id, value)}"
        if len(levers) > 1
        else _one(levers, lever_id, value)
        for lever_id, value in answers.items()
        if value is not None
    ]
    return ", ".join(parts) or UNSURE


def _one(levers: Sequence[Lever], name: str, value: str) -> str:
    lever = next((lever for lever in levers if lever.id == name), None)
    if lever is None:
        return value
    if lever.number is not None:
        return f"{value} {lever.number.unit}"
    return words_of(lever.labels).get(value, value)
