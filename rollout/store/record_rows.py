"""How records stand in their tables: the row of each, and what makes two equal."""

import json
import json.encoder
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from math import isfinite
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Table

from rollout.core.ledger import EPOCH, MICROSECOND
from rollout.core.records import Action, Case, Decision, Outcome, Prediction, Record
from rollout.store.columns import plain, stored
from rollout.store.tables import actions, cases, decisions, outcomes, predictions

Cells = tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """How one kind of record is stored.

    Attributes:
        name: the kind as the API and `set_aside` call it.
        table: where it stands.
        key: the columns of its key after the case.
        row: its row, without the numbers of case and episode, and without the hash at its end.
        said: of that, what the caller said: two records of one key that say the same are one.
    """

    name: str
    table: Table
    key: tuple[str, ...]
    row: Callable[[Any, int, int], Cells]
    said: Callable[[Any, Cells], Cells]

    @property
    def key_of(self) -> Callable[[Record], Any]:
        """Return what gives a record's key after its case: one value, or a tuple of several."""
        return attrgetter(*self.key)

    def placed(self, row: Cells, case_id: int, episode: int | None, said: bytes) -> Cells:
        """Return the row with what it was made without."""
        if self.table is cases:
            return (row[0], case_id, *row[2:7], episode, *row[8:], said)
        return (row[0], case_id, *row[2:], said)


def digest(form: Form, record: Record, row: Cells) -> bytes:
    """Return the SHA-256 of what a record says.

    Raises:
        ValueError: a number is infinite or none, or a text can't be stored.
    """
    said = ascii((form.name, *form.said(record, row)))  # one text for one content, always
    if "\\x00" in said or "\\ud" in said or "nan" in said or "inf" in said:  # written in ASCII
        _check(row)
    return sha256(said.encode()).digest()


def _check(row: Cells) -> None:
    for cell in row:
        if isinstance(cell, str):
            cell.encode()
            if "\0" in cell:
                raise ValueError("a text has a NUL character; leave it out")
        if isinstance(cell, float) and not isfinite(cell):
            raise ValueError(f"{cell} is no number that JSON has; leave it out")


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
    return _written(dict(value)) if value else "{}"


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


def _case_row(case: Case, rollout: int, received_at: int) -> Cells:
    return (
        rollout,
        None,
        case.revision,
        case.site,
        case.window,
        _instant(case.occurred_at),
        received_at,
        None,
        _plain(case.attributes),
        _plain(case.media),
    )


def _prediction_row(said: Prediction, rollout: int, received_at: int) -> Cells:
    return (
        rollout,
        None,
        said.version,
        said.revision,
        _plain(said.answers),
        said.confidence,
        _plain(said.probabilities),
        said.latency_ms,
        said.error,
        _at(said.at),
        received_at,
        said.scope_revision,
        said.decider,
        said.exposure,
        said.share,
    )


def _decision_row(said: Decision, rollout: int, received_at: int) -> Cells:
    return (
        rollout,
        None,
        said.reviewer,
        said.revision,
        _plain(said.answers),
        said.unsure,
        said.claims,
        said.exposure,
        said.seat,
        _at(said.started_at),
        _at(said.submitted_at),
        received_at,
        said.note,
        said.review,
    )


def _action_row(done: Action, rollout: int, received_at: int) -> Cells:
    return (
        rollout,
        None,
        done.lever,
        done.revision,
        done.action,
        done.by,
        done.version,
        _instant(done.at),
        received_at,
        done.scope_revision,
        done.permission,
    )


def _outcome_row(found: Outcome, rollout: int, received_at: int) -> Cells:
    return (
        rollout,
        None,
        found.revision,
        _plain(found.answers),
        found.harm,
        _instant(found.at),
        found.source,
        received_at,
    )


FORMS: Final[Mapping[type[Record], Form]] = MappingProxyType(
    {
        Case: Form(
            name="case",
            table=cases,
            key=("revision",),
            row=_case_row,
            said=lambda case, row: (row[3], row[5], case.episode, *row[8:]),
        ),
        Prediction: Form(
            name="prediction",
            table=predictions,
            key=("version", "revision"),
            row=_prediction_row,
            said=lambda _, row: row[4:10],
        ),
        Decision: Form(
            name="decision",
            table=decisions,
            key=("reviewer", "revision"),
            row=_decision_row,
            said=lambda _, row: (*row[4:7], *row[9:11], row[12]),
        ),
        Action: Form(
            name="action",
            table=actions,
            key=("lever", "revision"),
            row=_action_row,
            said=lambda _, row: row[4:8],
        ),
        Outcome: Form(
            name="outcome",
            table=outcomes,
            key=("revision",),
            row=_outcome_row,
            said=lambda _, row: row[3:7],
        ),
    }
)


def record_of(kind: type[Record], row: Row[Any], **callers: str | None) -> Record:
    """Return the record that a row holds; `callers` are its key, and its episode's if it has one.

    A record's fields are named as its table's columns.
    """
    own: dict[str, Any] = dict(callers)
    for named in fields(kind):
        own.setdefault(named.name, getattr(row, named.name, None))
    return kind(**own)
