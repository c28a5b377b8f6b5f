"""Values of a case's attributes that must be familiar to the version that acts."""

import json
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Final, NamedTuple

NO_VALUE: Final = "(none)"
UNREADABLE: Final = "(unreadable)"
MAX_VALUE_LENGTH: Final = 200
PLAIN_NUMBER: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)

FamiliarValues = Mapping[str, frozenset[str]]
"""The familiar values of a cell, by attribute or combination."""


class RequiredAttribute(NamedTuple):
    """An attribute whose values must be familiar, or a combination of several.

    `cuts` are the edges of the bins of a number, ascending; () for text.
    """

    names: tuple[str, ...]
    cuts: tuple[float, ...] = ()

    def read_value(self, attributes: Mapping[str, str]) -> str:
        """Return a case's value; of a combination the values as JSON, of a number its bin."""
        texts = [attributes.get(name, NO_VALUE) or NO_VALUE for name in self.names]
        if self.cuts:
            return texts[0] if texts[0] == NO_VALUE else find_bin(texts[0], self.cuts)
        value = texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
        return value if len(value) <= MAX_VALUE_LENGTH else UNREADABLE


def describe_unfamiliar(
    required: Sequence[RequiredAttribute],
    familiar: FamiliarValues,
    attributes: Mapping[str, str] | None,
) -> str:
    """Return why a case is unfamiliar, or ""."""
    unfamiliar = []
    for attribute in required:
        name, value = " + ".join(attribute.names), attribute.read_value(attributes or {})
        if value not in familiar.get(name, ()):
            unfamiliar.append(_format_value(name, value))
    return f"unfamiliar: {', '.join(unfamiliar)}" if unfamiliar else ""


def find_bin(text: str, cuts: Sequence[float]) -> str:
    """Return the bin of a number; bins include their lower edge, the last one both."""
    number = float(text) if PLAIN_NUMBER.fullmatch(text.strip()) else float("nan")
    if not isfinite(number):
        return UNREADABLE
    if number < cuts[0]:
        return f"below {_format_cut(cuts[0])}"
    if number > cuts[-1]:
        return f"above {_format_cut(cuts[-1])}"
    place = min(bisect_right(cuts, number), len(cuts) - 1)
    bracket = "]" if place == len(cuts) - 1 else ")"
    return f"[{_format_cut(cuts[place - 1])}, {_format_cut(cuts[place])}{bracket}"


def _format_cut(cut: float) -> str:
    """Return a cut as the service writes it."""
    short = f"{cut:g}"
    return short if float(short) == cut else repr(cut)


def _format_value(name: str, text: str) -> str:
    if " + " in name and text.startswith("["):
        with suppress(ValueError, TypeError):  # a plain attribute may have such a name
            text = " + ".join(json.loads(text))
    return f"{name}={text}"
