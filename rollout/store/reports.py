"""Reports as they were made: sealed under a hash, never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Row, Select, select

from rollout.store.insert_once import insert_once
from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import reports


@dataclass(frozen=True, slots=True)
class Report:
    """One report: what it is of, from when until when, in which schema, and its text."""

    name: str
    since: datetime
    until: datetime
    schema: str
    body: str
    made_at: datetime

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the text, which the ledger and recipients cite."""
        return sha256(self.body.encode()).hexdigest()


class Reports:
    """The reports of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def seal(self, report: Report) -> int:
        """Keep a report and return its number; the same one again has the number it had."""
        own = (
            reports.c.rollout == self._rollout.number,
            reports.c.name == report.name,
            reports.c.hash == report.hash,
        )
        row = {
            "rollout": self._rollout.number,
            "name": report.name,
            "since": report.since,
            "until": report.until,
            "schema": report.schema,
            "hash": report.hash,
            "body": report.body,
            "made_at": report.made_at,
        }
        insert_once(self._transaction, reports, row)
        return int(self._transaction.execute(select(reports.c.id).where(*own)).scalar_one())

    def get(self, number: int) -> Report | None:
        """Return a report of this rollout by its number, None where there is none."""
        found = self._transaction.execute(self._own().where(reports.c.id == number))
        row = found.one_or_none()
        return None if row is None else _report(row)

    def before(
        self, number: int | None = None, *, limit: int = 100
    ) -> Sequence[tuple[int, Report]]:
        """Return reports with their numbers, newest first, from before a number on."""
        query = self._own().order_by(reports.c.id.desc()).limit(limit)
        if number is not None:
            query = query.where(reports.c.id < number)
        return [(row.id, _report(row)) for row in self._transaction.execute(query)]

    def _own(self) -> Select[tuple[object, ...]]:
        return select(reports).where(reports.c.rollout == self._rollout.number)


def _report(row: Row[tuple[object, ...]]) -> Report:
    return Report(row.name, row.since, row.until, row.schema, row.body, row.made_at)
