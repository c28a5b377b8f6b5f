"""Small words of pages that no other module has: parts of addresses, groups of a hash."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote


def segment(name: str) -> str:
    """Return a name as one part of an address.

    >>> segment("north/gate 2")
    'north%2Fgate%202'
    """
    return quote(name, safe="")


def grouped(text: str, groups: int | None = None) -> str:
    """Return a hash in groups of four, the first few of them or all.

    >>> grouped("9f2cab01ffee", 2), grouped("9f2cab01")
    ('9f2c ab01 …', '9f2c ab01')
    """
    parts = [text[i : i + 4] for i in range(0, len(text), 4)]
    cut = groups is not None and groups < len(parts)
    return " ".join(parts[:groups]) + (" …" if cut else "")


def full_stop(text: str) -> str:
    """Return a sentence with its full stop, which an ellipsis is too.

    >>> full_stop("v1 is seen"), full_stop("hash 9f2c…"), full_stop("whole.")
    ('v1 is seen.', 'hash 9f2c…', 'whole.')
    """
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "segment": segment,
    "grouped": grouped,
    "full_stop": full_stop,
}
