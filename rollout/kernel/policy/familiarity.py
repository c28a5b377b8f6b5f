"""Familiar cases: attribute values that a version has met in a cell, and handled well.

A value is familiar if a version has at least N judged units with it in the cell and agrees in a
share of the newest 2N of them. A case with another value is decided by a human.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Final

from rollout.kernel.measures import Condition
from rollout.kernel.units import Key

AttributeValue = tuple[str, str]
"""The id of an attribute or combination, and its value."""
NO_VALUE: Final = "(none)"
"""The value of a case without the attribute."""
UNREADABLE: Final = "(unreadable)"
"""The value of a number that can't be read, or of a text that is too long: never familiar."""
FAMILIAR, MISTAKEN, FEW = "familiar", "mistaken", "few"
"""Statuses of a value: familiar; judged often enough, but wrong too often; judged too rarely."""
MAX_VALUES: Final = 1_000
"""Values of an attribute that can become familiar in a cell; later ones never do."""
MAX_VALUE_LENGTH: Final = 200
"""Characters of a value; snapshots hold the familiar ones."""
UNITS_BEFORE_NOTICE: Final = 5
"""Judged units of a new value before users are told of it."""
PLAIN_NUMBER: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class FamiliarAttribute:
    """An attribute whose values must be familiar, or a combination of several.

    Attributes:
        names: one attribute, or those of the combination.
        cuts: edges of the bins of a numeric attribute, ascending; () for text.
    """

    names: tuple[str, ...]
    cuts: tuple[float, ...] = ()

    @property
    def id(self) -> str:
        """Return the name under which its values are listed: `form`, `form + scanner`."""
        return " + ".join(self.names)

    def read_value(self, attributes: Mapping[str, str]) -> str:
        """Return a case's value; of a combination the values as JSON, of a number its bin.

        >>> FamiliarAttribute(("form", "scanner")).read_value({"form": "new"})
        '["new", "(none)"]'
        """
        texts = [attributes.get(name, NO_VALUE) or NO_VALUE for name in self.names]
        if self.cuts:
            return texts[0] if texts[0] == NO_VALUE else find_bin(texts[0], self.cuts)
        value = texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
        return value if len(value) <= MAX_VALUE_LENGTH else UNREADABLE


@dataclass(frozen=True, slots=True)
class FamiliarityRule:
    """Attributes whose values a version must have met in a cell, and handled well."""

    attributes: Annotated[
        tuple[FamiliarAttribute, ...],
        Key(
            "FamiliarAttributes",
            "Attributes, lists of attributes for combinations, and numbers with cuts: "
            "`{of: brightness, cuts: [0, 20, 50]}`. Name none with personal data: their values "
            "stand in the ledger.",
            "[form]",
        ),
    ]
    at_least: Annotated[int, Key("Ordinal", "Judged units with the value, in the cell.")] = 20
    line: Annotated[
        float | None,
        Key(
            "Share",
            "Share of the newest judged units, twice at_least, that must agree. "
            "Default: the threshold of the cell's loosest agreement guard.",
        ),
    ] = None

    @property
    def attribute_names(self) -> frozenset[str]:
        """Return the attributes of cases that it reads."""
        return frozenset(name for attribute in self.attributes for name in attribute.names)

    @property
    def attribute_ids(self) -> frozenset[str]:
        """Return the ids under which values are listed."""
        return frozenset(attribute.id for attribute in self.attributes)

    def list_values(self, attributes: Mapping[str, str] | None) -> tuple[AttributeValue, ...]:
        """Return a case's value of each attribute."""
        return tuple((a.id, a.read_value(attributes or {})) for a in self.attributes)

    def find_unfamiliar(
        self, attributes: Mapping[str, str] | None, statuses: Mapping[AttributeValue, str]
    ) -> tuple[AttributeValue, ...]:
        """Return the values of a case that are not familiar by their recorded statuses."""
        values = self.list_values(attributes)
        return tuple(value for value in values if statuses.get(value) != FAMILIAR)


@dataclass(frozen=True, slots=True)
class ValueReading:
    """What a tick reads of a value.

    Attributes:
        status: familiar, mistaken or few.
        judged, agreed: the newest judged units with the value, at most 2N.
        today: judged units on the local day of the newest one.
    """

    status: str
    judged: int = 0
    agreed: int = 0
    today: int = 0


def find_bin(text: str, cuts: Sequence[float]) -> str:
    """Return the bin of a number; bins include their lower edge, the last one both.

    >>> [find_bin(text, (0, 20, 50, 100)) for text in ("-1", "20", "50", "100", "101", "many")]
    ['below 0', '[20, 50)', '[50, 100]', '[50, 100]', 'above 100', '(unreadable)']
    """
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
    """Return a cut as text that no other cut has: bins of one name would be one value."""
    short = f"{cut:g}"
    return short if float(short) == cut else repr(cut)


def find_status(judged: int, agreed: int, total: int, rule: FamiliarityRule, line: float) -> str:
    """Return the status of a value.

    Args:
        judged: units among the newest 2N with the value.
        agreed: those of them in which the version agrees.
        total: all judged units with the value.
        rule: gives N.
        line: share that must agree.
    """
    if total < rule.at_least or not judged:
        return FEW
    return FAMILIAR if agreed >= line * judged - 1e-9 else MISTAKEN


def format_value(value: AttributeValue) -> str:
    """Return a value in words.

    >>> format_value(("form + scanner", '["new", "clean"]')), format_value(("form", "new"))
    ('form + scanner=new + clean', 'form=new')
    """
    attribute, text = value
    if " + " in attribute and text.startswith("["):
        with suppress(ValueError, TypeError):  # a plain attribute may have such a name
            text = " + ".join(json.loads(text))
    return f"{attribute}={text}"


def encode_case_values(values: Iterable[AttributeValue]) -> str:
    """Return the values of a case as stored JSON text."""
    return json.dumps(dict(values), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def decode_unit_values(text: str) -> tuple[frozenset[AttributeValue], ...]:
    """Return the values of each case of a unit, the judged one first; () if not stored.

    >>> [sorted(case) for case in decode_unit_values('[{"form":"old"},{"form":"new"}]')]
    [[('form', 'old')], [('form', 'new')]]
    """
    return tuple(frozenset(case.items()) for case in json.loads(text)) if text else ()


def find_line(rule: FamiliarityRule, conditions: Iterable[Condition]) -> float:
    """Return the share that must agree: the rule's, or the loosest agreement guard's.

    Args:
        rule: of the policy.
        conditions: those of the cell's guards; without one about agreement every unit must agree.
    """
    if rule.line is not None:
        return rule.line
    return min((c.threshold for c in conditions if c.measure.covers_all_labels), default=1.0)


def needs_record(status: str, reading: ValueReading, *, is_acting: bool) -> bool:
    """Return whether a reading differs from the recorded status in a way to record.

    A new value is recorded early only where the version acts, so that users are told of it.

    Args:
        status: the recorded one, "" without any.
        reading: of this tick.
        is_acting: whether the version holds grants in the cell.
    """
    if not status and reading.status == FEW:
        return is_acting and reading.judged >= UNITS_BEFORE_NOTICE
    return reading.status != status


def needs_incident(
    value: AttributeValue, reading: ValueReading, reported: frozenset[str], *, is_acting: bool
) -> bool:
    """Return whether a value's first incident in a cell is due."""
    return is_acting and reading.status == MISTAKEN and format_value(value) not in reported
