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
