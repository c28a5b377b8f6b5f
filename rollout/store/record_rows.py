"""How records stand in their tables: the row of each, and what makes two equal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Table

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

    def key_of(self, record: Record) -> Cells:
        """Return a record's key after its case."""
        return tuple(getattr(record, column) for column in self.key)

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
    if any(isinstance(cell, str) and "\0" in cell for cell in row):
        raise ValueError("a text has a NUL character; leave it out")
    return sha256(plain([form.name, *form.said(record, row)]).encode()).digest()


def _at(at: datetime | None) -> int | None:
    return None if at is None else stored(at)


def _plain(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else plain(dict(value))


def _case_row(case: Case, rollout: int, received_at: int) -> Cells:
    return (
        *(rollout, None, case.revision, case.site, case.window),
        *(stored(case.occurred_at), received_at, None),
        *(_plain(case.attributes), _plain(case.media)),
    )


def _prediction_row(said: Prediction, rollout: int, received_at: int) -> Cells:
    return (
        *(rollout, None, said.version, said.revision, _plain(said.answers)),
        *(said.confidence, _plain(said.probabilities), said.latency_ms, said.error, _at(said.at)),
        *(received_at, said.scope_revision, said.decider, said.exposure, said.share),
    )


def _decision_row(said: Decision, rollout: int, received_at: int) -> Cells:
    return (
        *(rollout, None, said.reviewer, said.revision, _plain(said.answers)),
        *(said.unsure, said.claims, said.exposure, said.seat, _at(said.started_at)),
        *(_at(said.submitted_at), received_at, said.note, said.review),
    )


def _action_row(done: Action, rollout: int, received_at: int) -> Cells:
    return (
        *(rollout, None, done.lever, done.revision, done.action, done.by),
        *(done.version, stored(done.at), received_at, done.scope_revision, done.permission),
    )


def _outcome_row(found: Outcome, rollout: int, received_at: int) -> Cells:
    return (
        *(rollout, None, found.revision, _plain(found.answers), found.harm),
        *(stored(found.at), found.source, received_at),
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
            said=lambda _, row: (*row[4:8], row[9]),
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
