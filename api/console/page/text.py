"""Small words of pages that no other module has: parts of addresses, groups of a hash."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

_KEPT: Final = re.compile(
    r"(<(textarea|option|pre|script)\b.*?</\2>|<[^>]*>)| %", re.DOTALL | re.IGNORECASE
)


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
    is_cut = groups is not None and groups < len(parts)
    return " ".join(parts[:groups]) + (" …" if is_cut else "")


def full_stop(text: str) -> str:
    """Return a sentence with its full stop, which an ellipsis is too.

    >>> full_stop("v1 is seen"), full_stop("hash 9f2c…"), full_stop("whole.")
    ('v1 is seen.', 'hash 9f2c…', 'whole.')
    """
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def first_large(text: str) -> str:
    """Return a text with a large first letter, the rest as it is; "" stays."""
    return text[:1].upper() + text[1:]


def unbroken(html: str) -> str:
    r"""Keep numbers and their per cent sign on one line, where text is read and not sent back.

    >>> unbroken('<p>5 %</p><input value="5 %"><textarea>5 %</textarea>')
    '<p>5\xa0%</p><input value="5 %"><textarea>5 %</textarea>'
    """
    return _KEPT.sub(lambda match: match[1] or "\u00a0%", html)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "segment": segment,
    "grouped": grouped,
    "full_stop": full_stop,
    "first_large": first_large,
}
