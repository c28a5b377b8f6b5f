"""How records stand in their tables: the columns of each kind, and what makes two equal."""

import json
import json.encoder
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import sha256
from itertools import chain, repeat
from math import isfinite
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Table

from rollout.core.calendar.instants import EPOCH, MICROSECOND
from rollout.core.records.records import (
    Action,
    AnyRecord,
    Case,
    Decision,
    Outcome,
    Prediction,
    Record,
    SentCase,
    SentDecision,
    SentPrediction,
)
from rollout.store.tables.columns import plain, stored
from rollout.store.tables.tables import actions, cases, decisions, outcomes, predictions

LONGEST_KEY: Final = 200  # letters of a key that a caller makes up
MOST_REVISIONS: Final = 2**31
FEW: Final = 4
"""Answers of one record up to which their text is remembered; more would be too long to keep."""
Column = Sequence[Any]
Cells = Mapping[str, Column]
"""Records of one kind, column by column: the first value of each column is of the first record.

A batch takes half as long so: most of what is done to a whole column is done in C.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How one kind of record is stored; fields and columns share names, but for `COLUMN_OF`.

    Attributes:
        name: the kind as the API and `rejected_records` call it.
        table: where it stands.
        key: the columns of its key after the case.
        fields: of the record; where it is also sent as a light one, in that one's order.
        made: what makes a field's column of its values, where they aren't stored as they are.
        said: the columns that hold what the caller said: two records of one key that say the same
            are one.
    """

    name: str
    table: Table
    key: tuple[str, ...]
    fields: tuple[str, ...]
    made: Mapping[str, Callable[[Column], Column]]
    said: tuple[str, ...]

    @property
    def key_of(self) -> Callable[[Record], Any]:
        """Return what gives a record's key after its case: one value, or a tuple of several."""
        return attrgetter(*self.key)

    def columns(self, records: Sequence[AnyRecord]) -> dict[str, Column]:
        """Return the fields of records of this kind, at least one, as columns.

        Instead of an episode's number stands its key. What else the table has is the store's: the
        case's number instead of its `key`, when the record was received, and its hash.

        Raises:
            ValueError, TypeError, OverflowError: something can't be stored.
        """
        are_tuples = len(set(map(type, records))) == 1 and isinstance(records[0], tuple)
        rows = records if are_tuples else map(attrgetter(*self.fields), records)
        columns: dict[str, Column] = dict(zip(self.fields, zip(*rows, strict=True), strict=True))
        for name, convert in chain(OF_EACH.items(), self.made.items()):
            columns[name] = convert(columns[name])
        return columns

    def hashes(self, columns: Cells) -> list[bytes]:
        """Return of each record the SHA-256 of what it says.

        Raises:
            ValueError: a number is infinite or none, or a text can't be stored.
        """
        content_texts = [
            _ascii(columns[name]) for name in self.said
        ]  # one text for one content, always
        texts = list(map(", ".join, zip(repeat(f"({self.name!r}"), *content_texts, strict=False)))
        if _odd("".join(texts)):
            for text, *row in zip(texts, *columns.values(), strict=True):
                if _odd(text):
                    _check(row)
        return [sha256(f"{text})".encode()).digest() for text in texts]


def _ascii(column: Column) -> Iterable[str]:
    first = column[0]
    if (first is None or type(first) is str) and column.count(first) == len(column):
        return repeat(ascii(first), len(column))
    return map(ascii, column)


def _odd(text: str) -> bool:
    return "\\" in text or "nan" in text or "inf" in text  # NUL and its like are written with a \


def _check(row: Iterable[Any]) -> None:
    for cell in row:
        if isinstance(cell, str):
            cell.encode()
            if "\0" in cell:
                raise ValueError("a text has a NUL character; leave it out")
        if isinstance(cell, float) and not isfinite(cell):
            raise ValueError(f"{cell} is no number that JSON has; leave it out")


def _keys(said: Column) -> Column:
    """Return keys that can be found again.

    Raises:
        ValueError: says what would be right.
    """
    shortest, longest = min(map(len, said)), max(map(len, said))
    joined = "".join(said)
    if not 0 < shortest <= longest <= LONGEST_KEY or "\0" in joined:
        raise ValueError(f"a key has 1 to {LONGEST_KEY} letters and no NUL character")
    joined.encode()
    return said


def _revisions(said: Column) -> Column:
    """Return revisions that can be stored.

    Raises:
        ValueError: says which can't.
    """
    for revision in (min(said), max(said)):
        if not 0 < revision < MOST_REVISIONS:
            raise ValueError(f"revision {revision} is none; the first is 1")
    return said


def _names(said: Column) -> Column:
    """Return names that stand in no hash, so that nothing else looks at their letters.

    Raises:
        ValueError: one can't be stored.
    """
    joined = "".join(said)
    if not joined.isascii() or "\0" in joined:
        _check(said)
    return said


def _instants(times: Column) -> Column:
    """Return instants as `stored` does."""
    try:
        return [(at - EPOCH) // MICROSECOND for at in times]
    except TypeError:
        return list(map(stored, times))  # says what is wrong with one


def _plains(values: Column) -> Column:
    """Return JSON as `plain` does."""
    return [_written(dict(value)) if value else "{}" for value in values]


def _maybe(make: Callable[[Column], Column]) -> Callable[[Column], Column]:
    """Return what makes a column in which a value may be none."""

    def made(values: Column) -> Column:
        null_count = values.count(None)
        if not null_count:
            return make(values)
        if null_count == len(values):
            return values
        converted = iter(make([value for value in values if value is not None]))
        return [None if value is None else next(converted) for value in values]

    return made


def _answers(said: Column) -> Column:
    """Return answers as `plain` does: labels are few, and most were written before."""
    return [
        _few(tuple(answers.items())) if len(answers) <= FEW else _written(dict(answers))
        for answers in said
    ]


@lru_cache(maxsize=1_000)
def _few(said: tuple[tuple[str, str | None], ...]) -> str:
    return _written(dict(said))


def _writer() -> Callable[[Any], str]:
    """Return what writes as `plain` does, without making an encoder for each text."""
    make_encoder: Any = getattr(json.encoder, "c_make_encoder", None)
    if make_encoder is None:  # an interpreter without the standard library's C parts
        return plain

    def refuse(value: object) -> None:
        raise TypeError(f"{value!r} is not JSON")

    write = make_encoder(
        None, refuse, json.encoder.encode_basestring, None, ":", ",", True, False, False
    )
    return lambda value: "".join(write(value, 0))


_written = _writer()

OF_EACH: Final = {"key": _keys, "revision": _revisions}

FORMS: Final[Mapping[type[Record], Form]] = MappingProxyType(
    {
        Case: Form(
            name="case",
            table=cases,
            key=("revision",),
            fields=SentCase._fields,
            made={
                "occurred_at": _instants,
                "attributes": _plains,
                "media": _plains,
                "window": _names,
            },
            said=("site", "occurred_at", "episode", "attributes", "media"),
        ),
        Prediction: Form(
            name="prediction",
            table=predictions,
            key=("version", "revision"),
            fields=SentPrediction._fields,
            made={
                "version": _names,
                "answers": _answers,
                "probabilities": _maybe(_plains),
                "at": _maybe(_instants),
            },
            said=("answers", "confidence", "probabilities", "latency_ms", "error", "at"),
        ),
        Decision: Form(
            name="decision",
            table=decisions,
            key=("reviewer", "revision"),
            fields=SentDecision._fields,
            made={
                "reviewer": _names,
                "answers": _answers,
                "started_at": _maybe(_instants),
                "submitted_at": _maybe(_instants),
            },
            said=("answers", "unsure", "claims", "started_at", "submitted_at", "note"),
        ),
        Action: Form(
            name="action",
            table=actions,
            key=("lever", "revision"),
            fields=(
                *("key", "lever", "action", "by", "version", "at"),
                *("scope_revision", "permission", "revision"),
            ),
            made={"lever": _names, "at": _instants},
            said=("action", "by", "version", "at"),
        ),
        Outcome: Form(
            name="outcome",
            table=outcomes,
            key=("revision",),
            fields=("key", "answers", "harm", "at", "source", "revision"),
            made={"answers": _answers, "at": _instants},
            said=("answers", "harm", "at", "source"),
        ),
    }
)
FORM_OF: Final[Mapping[type[AnyRecord], Form]] = {
    **dict(FORMS.items()),
    SentCase: FORMS[Case],
    SentPrediction: FORMS[Prediction],
    SentDecision: FORMS[Decision],
}


COLUMN_OF: Final[Mapping[str, str]] = {
    "claims": "claimed_exposure",
    "permission": "authorization",
    "seat": "task_number",
}
"""The columns that have other names than the fields of records."""


def record_of(kind: type[Record], row: Row[Any], **callers: str | None) -> Record:
    """Return the record of a row; `callers` are its key, and its episode's if it has one."""
    values: dict[str, Any] = dict(callers)
    for record_field in fields(kind):
        values.setdefault(
            record_field.name,
            getattr(row, COLUMN_OF.get(record_field.name, record_field.name), None),
        )
    return kind(**values)
