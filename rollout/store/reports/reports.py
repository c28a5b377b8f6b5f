"""Reports as they were made: sealed under a hash, version after version, never changed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Row, Select, insert, select

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import reports

LONGEST = 100  # letters of a name
COLUMN_OF: Final = {"made_at": "created_at", "sealed_in": "sealed_revision"}
"""The columns that have other names than the fields."""
BRIEF = ("id", "name", "view", "since", "until", "version", "state", "due", "hash", "made_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One version of a report.

    Attributes:
        name: under which it is made again and again.
        since, until: it is of the cases that occurred from one up to the other.
        version: 1, and one more each time something in it has changed.
        state: `provisional` while cases of the span are open, then `final`.
        due: when the last of them closes; None where none was placed.
        view: who it is for first; every view can be read.
        schema: form of the body.
        body: the text that is sealed, JSON.
        divergences: every divergence as CSV; its hash stands in the body.
        made_at: when.
        sealed_in: the ledger's revision that cites the body's hash.
    """

    name: str
    since: datetime
    until: datetime
    version: int
    state: str
    due: datetime | None
    view: str
    schema: str
    body: str
    divergences: str
    made_at: datetime
    sealed_in: int

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the text, which the ledger and recipients cite."""
        return sha256(self.body.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A report in a list: all but what it says. `id` is its number."""

    id: int
    name: str
    view: str
    since: datetime
    until: datetime
    version: int
    state: str
    due: datetime | None
    hash: str
    made_at: datetime


class Reports:
    """The reports of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def seal(self, report: Report) -> int:
        """Keep a version and return its number; it follows from the ledger that it is the next."""
        own = {COLUMN_OF.get(name, name): value for name, value in asdict(report).items()}
        row = {"rollout": self._rollout.number, **own, "hash": report.hash}
        statement = insert(reports).values(row).returning(reports.c.id)
        return int(self._transaction.execute(statement).scalar_one())

    def get(self, number: int) -> Report | None:
        """Return a report of this rollout by its number, None where there is none."""
        result = self._transaction.execute(self._own().where(reports.c.id == number))
        row = result.one_or_none()
        return None if row is None else _report(row)

    def last(self, name: str, since: datetime, until: datetime) -> tuple[int, Report] | None:
        """Return the newest version of a span's report with its number, None before the first."""
        conditions = (reports.c.name == name, reports.c.since == since, reports.c.until == until)
        query = self._own().where(*conditions).order_by(reports.c.version.desc()).limit(1)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else (row.id, _report(row))

    def before(
        self, number: int | None = None, *, name: str | None = None, limit: int = 100
    ) -> Sequence[Brief]:
        """Return reports without their texts, newest first, from before a number on."""
        columns = (reports.c[COLUMN_OF.get(field, field)].label(field) for field in BRIEF)
        query = select(*columns).where(reports.c.rollout == self._rollout.number)
        if number is not None:
            query = query.where(reports.c.id < number)
        if name is not None:
            query = query.where(reports.c.name == name)
        query = query.order_by(reports.c.id.desc()).limit(limit)
        return [Brief(**row._asdict()) for row in self._transaction.execute(query)]

    def sealed_in(self) -> dict[int, tuple[int, str]]:
        """Return by the ledger's revision each report's number and the hash beside it."""
        query = select(reports.c.sealed_revision, reports.c.id, reports.c.hash)
        rows = self._transaction.execute(query.where(reports.c.rollout == self._rollout.number))
        return {row.sealed_revision: (row.id, row.hash) for row in rows}

    def _own(self) -> Select[Any]:
        return select(reports).where(reports.c.rollout == self._rollout.number)


def _report(row: Row[Any]) -> Report:
    fields = Report.__dataclass_fields__
    return Report(**{name: getattr(row, COLUMN_OF.get(name, name)) for name in fields})
