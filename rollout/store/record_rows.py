"""How records stand in their tables: the row of each, and what makes two equal."""

import json
import json.encoder
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from math import isfinite
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Table

from rollout.core.ledger import EPOCH, MICROSECOND
from rollout.core.records import Action, Case, Decision, Outcome, Prediction, Record
from rollout.core.sent import (
    AnyCase,
    AnyDecision,
    AnyPrediction,
    AnyRecord,
    SentCase,
    SentDecision,
    SentPrediction,
)
from rollout.store.columns import plain, stored
from rollout.store.tables import actions, cases, decisions, outcomes, predictions

FEW: Final = 4
"""Answers of one record up to which their text is remembered; more would be too long to keep."""
Cells = tuple[Any, ...]
Written = tuple[Any, Cells, Cells]
"""A record's key after its case, its cells, and what of it the caller said.

Two records of one key that say the same are one.
"""

New = tuple[int, Cells, bytes]
"""A record that is new, on its way into its table: its case's number, its cells and its hash."""


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How one kind of record is stored.

    Attributes:
        name: the kind as the API and `set_aside` call it.
        table: where it stands.
        key: the columns of its key after the case.
        cells: the columns that are the record's own: not those of the rollout, the case's number,
            when it was received, and the hash. Instead of an episode's number stands its key.
        written: gives these of a record, or of a light one.
    """

    name: str
    table: Table
    key: tuple[str, ...]
    cells: tuple[str, ...]
    written: Callable[[Any], Written]

    @property
    def key_of(self) -> Callable[[Record], Any]:
        """Return what gives a record's key after its case: one value, or a tuple of several."""
        return attrgetter(*self.key)


def digest(said: Cells, cells: Cells) -> bytes:
    """Return the SHA-256 of what a record says.

    Raises:
        ValueError: a number is infinite or none, or a text can't be stored.
    """
    text = ascii(said)  # one text for one content, always
    if "\\" in text or "nan" in text or "inf" in text:  # NUL and its like are written with a \\
        _check(cells)
    return sha256(text.encode()).digest()


def _check(row: Cells) -> None:
    for cell in row:
        if isinstance(cell, str):
            cell.encode()
            if "\0" in cell:
                raise ValueError("a text has a NUL character; leave it out")
        if isinstance(cell, float) and not isfinite(cell):
            raise ValueError(f"{cell} is no number that JSON has; leave it out")


def _name(said: str) -> str:
    """Return a name that stands in no hash, so that nothing else looks at its letters.

    Raises:
        ValueError: it can't be stored.
    """
    if not said.isascii() or "\0" in said:
        _check((said,))
    return said


def _instant(at: datetime) -> int:
    """Return an instant as `stored` does, asked for each record several times."""
    try:
        return (at - EPOCH) // MICROSECOND
    except TypeError:
        return stored(at)  # says what is wrong with it


def _at(at: datetime | None) -> int | None:
    return None if at is None else _instant(at)


def _plain(value: Mapping[str, Any] | None) -> str | None:
    if value is None:
        return None
    if not value:
        return "{}"
    return _written(value if type(value) is dict else dict(value))


def _answers(said: Mapping[str, str | None]) -> str:
    """Return answers as `_plain` does: labels are few, and most were written before."""
    return _few(tuple(said.items())) if len(said) <= FEW else _written(dict(said))


@lru_cache(maxsize=1_000)
def _few(said: tuple[tuple[str, str | None], ...]) -> str:
    return _written(dict(said))


def _writer() -> Callable[[Any], str]:
    """Return what writes as `plain` does, without making an encoder for each text."""
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the standard library's C parts
        return plain

    def refuse(value: object) -> None:
        raise TypeError(f"{value!r} is not JSON")

    write = make(None, refuse, json.encoder.encode_basestring, None, ":", ",", True, False, False)
    return lambda value: "".join(write(value, 0))


_written = _writer()


def _case(case: AnyCase) -> Written:
    occurred, episode = _instant(case.occurred_at), case.episode
    attributes, media = _plain(case.attributes), _plain(case.media)
    cells = (case.revision, case.site, _name(case.window), occurred, episode, attributes, media)
    return case.revision, cells, ("case", case.site, occurred, episode, attributes, media)


def _prediction(said: AnyPrediction) -> Written:
    own = (_name(said.version), said.revision)
    told = (
        _answers(said.answers),
        said.confidence,
        _plain(said.probabilities),
        said.latency_ms,
        said.error,
        _at(said.at),
    )
    cells = (*own, *told, said.scope_revision, said.decider, said.exposure, said.share)
    return own, cells, ("prediction", *told)


def _decision(said: AnyDecision) -> Written:
    own, answers, unsure = (
        (_name(said.reviewer), said.revision),
        _answers(said.answers),
        said.unsure,
    )
    started, submitted, note = _at(said.started_at), _at(said.submitted_at), said.note
    cells = (
        *own,
        answers,
        int(unsure),  # SQLite's driver takes longer for a truth value, and stores this
        said.claims,
        said.exposure,
        said.seat,
        started,
        submitted,
        note,
        said.review,
    )
    return own, cells, ("decision", answers, unsure, said.claims, started, submitted, note)


def _action(done: Action) -> Written:
    own, told = (
        (_name(done.lever), done.revision),
        (done.action, done.by, done.version, _instant(done.at)),
    )
    return own, (*own, *told, done.scope_revision, done.permission), ("action", *told)


def _outcome(found: Outcome) -> Written:
    told = (_answers(found.answers), found.harm, _instant(found.at), found.source)
    return found.revision, (found.revision, *told), ("outcome", *told)


FORMS: Final[Mapping[type[Record], Form]] = MappingProxyType(
    {
        Case: Form(
            name="case",
            table=cases,
            key=("revision",),
            cells=("revision", "site", "window", "occurred_at", "episode", "attributes", "media"),
            written=_case,
        ),
        Prediction: Form(
            name="prediction",
            table=predictions,
            key=("version", "revision"),
            cells=(
                *("version", "revision", "answers", "confidence", "probabilities", "latency_ms"),
                *("error", "at", "scope_revision", "decider", "exposure", "share"),
            ),
            written=_prediction,
        ),
        Decision: Form(
            name="decision",
            table=decisions,
            key=("reviewer", "revision"),
            cells=(
                *("reviewer", "revision", "answers", "unsure", "claims", "exposure", "seat"),
                *("started_at", "submitted_at", "note", "review"),
            ),
            written=_decision,
        ),
        Action: Form(
            name="action",
            table=actions,
            key=("lever", "revision"),
            cells=(
                *("lever", "revision", "action", "by", "version", "at"),
                *("scope_revision", "permission"),
            ),
            written=_action,
        ),
        Outcome: Form(
            name="outcome",
            table=outcomes,
            key=("revision",),
            cells=("revision", "answers", "harm", "at", "source"),
            written=_outcome,
        ),
    }
)
FORM_OF: Final[Mapping[type[AnyRecord], Form]] = {
    **dict(FORMS.items()),
    SentCase: FORMS[Case],
    SentPrediction: FORMS[Prediction],
    SentDecision: FORMS[Decision],
}


def record_of(kind: type[Record], row: Row[Any], **callers: str | None) -> Record:
    """Return the record that a row holds; `callers` are its key, and its episode's if it has one.

    A record's fields are named as its table's columns.
    """
    own: dict[str, Any] = dict(callers)
    for named in fields(kind):
        own.setdefault(named.name, getattr(row, named.name, None))
    return kind(**own)
