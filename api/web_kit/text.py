"""Text helpers of pages: URL segments, hash groups, sentences."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from markupsafe import Markup, escape

from rollout.engine.words.event_kinds import find_tone
from rollout.engine.words.formatting import capitalize_first
from rollout.engine.words.state_text import CLOSED_PROPOSALS

_TAG_OR_PERCENT: Final = re.compile(
    r"(<(textarea|option|pre|script)\b.*?</\2>|<[^>]*>)| %", re.DOTALL | re.IGNORECASE
)

ATTRIBUTE_PREFIX: Final = "is "
"""Prefix of an attribute's name in the filter of the divergences: `is camera`."""


def encode_segment(name: str) -> str:
    """Return a name as one segment of a URL path.

    >>> encode_segment("north/gate 2")
    'north%2Fgate%202'
    """
    return quote(name, safe="")


def group_hash(text: str, groups: int | None = None) -> str:
    """Return a hash in groups of four characters, all or the first `count`.

    >>> group_hash("9f2cab01ffee", 2), group_hash("9f2cab01")
    ('9f2c ab01 …', '9f2c ab01')
    """
    parts = [text[i : i + 4] for i in range(0, len(text), 4)]
    is_cut = groups is not None and groups < len(parts)
    return " ".join(parts[:groups]) + (" …" if is_cut else "")


def add_full_stop(text: str) -> str:
    """Return a sentence with a full stop, unless it ends with one.

    >>> add_full_stop("v1 is seen"), add_full_stop("hash 9f2c…"), add_full_stop("whole.")
    ('v1 is seen.', 'hash 9f2c…', 'whole.')
    """
    return text if text.endswith((".", "…", "!", "?")) else f"{text}."


def mark_code(text: str) -> Markup:
    """Return an escaped text in which what backticks enclose is code.

    >>> mark_code("Run `rollout doctor` on <v1>.")
    Markup('Run <code>rollout doctor</code> on &lt;v1&gt;.')
    """
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(text.split("`"))
    )


def join_percent_signs(html: str) -> str:
    r"""Join numbers and percent signs with no-break spaces, outside form fields.

    >>> join_percent_signs('<p>5 %</p><input value="5 %"><textarea>5 %</textarea>')
    '<p>5\xa0%</p><input value="5 %"><textarea>5 %</textarea>'
    """
    return _TAG_OR_PERCENT.sub(lambda match: match[1] or "\u00a0%", html)


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "segment": encode_segment,
    "grouped": group_hash,
    "full_stop": add_full_stop,
    "code": mark_code,
    "first_large": capitalize_first,
    "event_tone": find_tone,
    "closed_state": CLOSED_PROPOSALS.__getitem__,
}
