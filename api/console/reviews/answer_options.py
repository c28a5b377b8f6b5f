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
    own = [_own(label) for label in labels]
    keys: list[str] = []
    for label, key in zip(labels, own, strict=True):
        if key and own.count(key) == 1:
            keys.append(key)
            continue
        wanted = DIGITS if len(labels) > MOST_LETTERS else [*_letters(label), *DIGITS]
        keys.append(_first(wanted, {*TAKEN, *own, *keys}))
    return tuple(keys)


def _own(label: str) -> str:
    """Return the key that a label is by itself, "" where it is longer or the key is taken."""
    small = label.lower()
    fits = len(small) == 1 and small.isascii() and small.isalnum()
    return small if fits and small not in TAKEN else ""


def _letters(label: str) -> list[str]:
    """Return the characters of a label that are one key each, in small letters."""
    return [small for c in label if c.isalnum() and len(small := c.lower()) == 1]


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
    spoken = [words_of(lever.labels) for lever in levers]
    keys = iter(keys_of([says for words in spoken for says in words.values()]))
    questions = tuple(
        Question(
            field=field_of(lever),
            place=place,
            lever=lever.id,
            choices=tuple(Choice(label, says, next(keys)) for label, says in words.items()),
            number=lever.number,
        )
        for place, (lever, words) in enumerate(zip(levers, spoken, strict=True), start=1)
    )
    alone = len(questions) == 1 and questions[0].number is None
    return Asked(title_of(questions), questions, buttons=alone)


def field_of(lever: Lever) -> str:
    """Return the name of a lever's field: its own, so that a policy that changed mixes up none."""
    return f"lever.{lever.id}"


def title_of(questions: Sequence[Question]) -> str:
    """Return the question in one line."""
    if len(questions) != 1:
        return f"{several(len(questions), 'question')} about this case"
    (only,) = questions
    if only.number is not None:
        return f"{first_large(only.lever)}: how many {only.number.unit}?"
    if len(only.choices) <= FEW:
        said = [choice.says for choice in only.choices]
        return first_large(f"{', '.join(said[:-1])} or {said[-1]}?" if said[1:] else f"{said[0]}?")
    return f"{first_large(only.lever)}: which of these?"


def words_of(labels: Sequence[str]) -> Mapping[str, str]:
    """Return how labels read: with spaces for dashes, unless two of them would read the same.

    >>> words_of(["no-bear", "bear"]), words_of(["a-b", "a b"])
    ({'no-bear': 'no bear', 'bear': 'bear'}, {'a-b': 'a-b', 'a b': 'a b'})
    """
    spoken = [" ".join(label.replace("-", " ").replace("_", " ").split()) for label in labels]
    plain = all(spoken) and len(set(spoken)) == len(spoken)
    return dict(zip(labels, spoken if plain else labels, strict=True))


def said(levers: Sequence[Lever], answers: Mapping[str, str | None]) -> str:
    """Say an answer in words; "unsure" where it holds none.

    Levers that the policy doesn't have any more are told as they were sent.
    """
    parts = [
        f"{name}: {_one(levers, name, value)}" if len(levers) > 1 else _one(levers, name, value)
        for name, value in answers.items()
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
