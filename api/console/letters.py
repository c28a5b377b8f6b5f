"""The key of each answer on the review page: one letter or digit that is pressed alone."""

from collections.abc import Iterable, Sequence
from typing import Final

UNSURE, UNDO, NOTE, HELP = "u", "z", ".", "?"
TAKEN: Final = frozenset({UNSURE, UNDO, NOTE, HELP})
"""Keys that mean the same on every page, whatever the labels are."""

MOST_LETTERS: Final = 8
"""Up to so many labels have a letter of their own name; of more, the first ten have a digit."""

DIGITS: Final = "1234567890"


def keys_of(labels: Sequence[str]) -> tuple[str, ...]:
    """Return a key for each label, "" for one that is left without.

    >>> keys_of(["bear", "no bear", "badger"]), keys_of(["unknown", "7"])
    (('b', 'n', 'a'), ('n', '7'))
    >>> keys_of(["zz", "b", "bb"])
    ('1', 'b', '2')
    """
    keys: list[str] = []
    for label in labels:
        used = {*TAKEN, *keys}
        wanted = DIGITS if len(labels) > MOST_LETTERS else [*_letters(label), *DIGITS]
        keys.append(_first(wanted, used))
    return tuple(keys)


def _letters(label: str) -> list[str]:
    """Return the characters of a label that are one key each, in small letters."""
    return [small for c in label if c.isalnum() and len(small := c.lower()) == 1]


def _first(wanted: Iterable[str], used: set[str]) -> str:
    return next((key for key in wanted if key not in used), "")
