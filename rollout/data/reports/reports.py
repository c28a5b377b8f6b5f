"""Reports, sealed under a hash: each version is stored once and never changes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, delete, func, insert, select, update

from rollout.data.database.bulk import insert_once
from rollout.data.database.rollouts import Rollout
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import report_requests, report_runs, reports

REQUEST_LOCKS: Final = 0
"""First key of PostgreSQL's advisory locks of accounts that request reports; no rollout's."""


@dataclass(frozen=True, slots=True)
class AccountRequest:
    """An account's request for a report; one that runs is renewed by what makes it."""

    started_at: datetime
    renewed_at: datetime
    is_running: bool


class ReportRequests:
    """The report requests of one account, to all rollouts and replicas."""

    def __init__(self, transaction: Transaction, principal: str) -> None:
        self._transaction = transaction
        self._principal = principal

    def lock(self) -> None:
        """Block other requests of this account until the transaction ends.

        SQLite has one writer anyway.
        """
        if self._transaction.engine == "postgresql":
            lock_key = (REQUEST_LOCKS, func.hashtext(self._principal))
            self._transaction.execute(select(func.pg_advisory_xact_lock(*lock_key)))

    def list_since(self, since: datetime) -> Sequence[AccountRequest]:
        """Return those that started since a time, oldest first."""
        query = select(report_requests).where(
            report_requests.c.principal == self._principal, report_requests.c.started_at > since
        )
        rows = self._transaction.execute(query.order_by(report_requests.c.started_at))
        return [AccountRequest(row.started_at, row.renewed_at, row.is_running) for row in rows]

    def start(self, *, at: datetime) -> int:
        """Store that a request starts; return its number."""
        row = {"principal": self._principal, "started_at": at, "renewed_at": at, "is_running": True}
        statement = insert(report_requests).values(row).returning(report_requests.c.id)
        return int(self._transaction.execute(statement).scalar_one())

    def renew(self, number: int, *, at: datetime) -> None:
        """Store that a request still runs."""
        statement = update(report_requests).where(report_requests.c.id == number)
        self._transaction.execute(statement.values(renewed_at=at))

    def end(self, number: int, *, is_free: bool) -> None:
        """Store that a request has ended; one that cost nothing is deleted."""
        is_same = report_requests.c.id == number
        ended = update(report_requests).where(is_same).values(is_running=False)
        self._transaction.execute(delete(report_requests).where(is_same) if is_free else ended)

    def delete_others(self, since: datetime, until: datetime) -> None:
        """Delete all accounts' requests outside a time: old ones, and those of a wrong clock."""
        started_at = report_requests.c.started_at
        self._transaction.execute(
            delete(report_requests).where((started_at <= since) | (started_at >= until))
        )


class ReportRuns:
    """The report runs of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def load_done_mark(self, run_name: str) -> int | None:
        """Return the watermark of the last finished run, or None."""
        query = select(func.max(report_runs.c.watermark)).where(
            *self._match_run(run_name), report_runs.c.done_at.is_not(None)
        )
        mark: int | None = self._transaction.execute(query).scalar()
        return mark

    def claim(
        self, run_name: str, mark: int, *, owner: str, at: datetime, stale_after: timedelta
    ) -> bool:
        """Claim a run for `owner`; of concurrent calls exactly one returns True.

        A claim that is not done can be taken after `stale_after`.
        """
        row = {
            "rollout": self._rollout.number,
            "report_name": run_name,
            "watermark": mark,
            "owner": owner,
            "claimed_at": at,
        }
        if insert_once(self._transaction, report_runs, row):
            return True
        stale_conditions = (
            report_runs.c.watermark == mark,
            report_runs.c.done_at.is_(None),
            report_runs.c.claimed_at <= at - stale_after,
        )
        statement = update(report_runs).where(*self._match_run(run_name), *stale_conditions)
        result = self._transaction.execute(statement.values(owner=owner, claimed_at=at))
        return result.rowcount == 1

    def complete(self, run_name: str, mark: int, *, owner: str, at: datetime) -> bool:
        """Store that a run is done and delete earlier ones.

        Return False if another owner has the claim by now, or a later run is done.
        """
        run_conditions = self._match_run(run_name)
        owner_conditions = (report_runs.c.watermark == mark, report_runs.c.owner == owner)
        statement = update(report_runs).where(
            *run_conditions, *owner_conditions, report_runs.c.done_at.is_(None)
        )
        if self._transaction.execute(statement.values(done_at=at)).rowcount != 1:
            return False
        self._transaction.execute(
            delete(report_runs).where(*run_conditions, report_runs.c.watermark < mark)
        )
        return True

    def start(self, run_name: str, mark: int, *, at: datetime) -> None:
        """Set the first watermark, unless a run exists.

        Nothing before it is due.
        """
        row = {
            "rollout": self._rollout.number,
            "report_name": run_name,
            "watermark": mark,
            "owner": "",
            "claimed_at": at,
            "done_at": at,
        }
        insert_once(self._transaction, report_runs, row)

    def _match_run(self, run_name: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        return report_runs.c.rollout == self._rollout.number, report_runs.c.report_name == run_name


MAX_NAME_LENGTH = 100  # letters of a name
COLUMN_OF: Final = {"made_at": "created_at", "sealed_in": "sealed_revision", "seal": "hash"}
"""The columns whose names differ from the fields."""
SUMMARY_COLUMNS = (
    "id",
    "name",
    "view",
    "since",
    "until",
    "version",
    "state",
    "due",
    "hash",
    "made_at",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport:
    """A version of a report.

    Attributes:
        name: shared by all versions.
        since, until: period of the cases; the end is excluded.
        version: starts at 1; grows when the content of the same period changes.
        state: `provisional` while cases of the period are open, then `final`.
        due: when the last of these cases closes; None without open cases.
        view: the view that is shown first; all views can be read.
        schema: form of the body.
        body: the sealed text, JSON.
        divergences: all divergences as CSV; the body holds its hash.
        sealed_in: the ledger revision that cites the hash.
        seal: the hash that recipients and ledger cite; "" means the SHA-256 of the body.
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
    seal: str = ""

    @property
    def hash(self) -> str:
        """Return the hash that the ledger and recipients cite."""
        return self.seal or sha256(self.body.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSummary:
    """A report in a list, without its content; `id` is its number."""

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


class ReportStore:
    """The reports of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def store(self, report: StoredReport) -> int:
        """Store a version and return its number."""
        columns = {COLUMN_OF.get(name, name): value for name, value in asdict(report).items()}
        row = {"rollout": self._rollout.number, **columns, "hash": report.hash}
        statement = insert(reports).returning(reports.c.id)
        return int(self._transaction.execute(statement, row).scalar_one())

    def get(self, number: int) -> StoredReport | None:
        """Return the report with this number, or None."""
        result = self._transaction.execute(self._select_own().where(reports.c.id == number))
        row = result.one_or_none()
        return None if row is None else _build_report(row)

    def find_newest(
        self, name: str, since: datetime, until: datetime
    ) -> tuple[int, StoredReport] | None:
        """Return a period's newest report with its number, or None."""
        conditions = (reports.c.name == name, reports.c.since == since, reports.c.until == until)
        query = self._select_own().where(*conditions).order_by(reports.c.version.desc()).limit(1)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else (row.id, _build_report(row))

    def list_before(
        self, number: int | None = None, *, name: str | None = None, limit: int = 100
    ) -> Sequence[ReportSummary]:
        """Return report summaries before a number, newest first."""
        columns = (reports.c[COLUMN_OF.get(field, field)].label(field) for field in SUMMARY_COLUMNS)
        query = select(*columns).where(reports.c.rollout == self._rollout.number)
        if number is not None:
            query = query.where(reports.c.id < number)
        if name is not None:
            query = query.where(reports.c.name == name)
        query = query.order_by(reports.c.id.desc()).limit(limit)
        return [ReportSummary(**row._asdict()) for row in self._transaction.execute(query)]

    def list_numbers(self) -> Sequence[int]:
        """Return the numbers of all reports, in their order."""
        query = select(reports.c.id).where(reports.c.rollout == self._rollout.number)
        return list(self._transaction.execute(query.order_by(reports.c.id)).scalars())

    def replace_content(self, number: int, body: str, divergences: str) -> None:
        """Replace a report's text and table where parts were erased; allowed in an open purge."""
        statement = update(reports).where(
            reports.c.rollout == self._rollout.number, reports.c.id == number
        )
        self._transaction.execute(statement, {"body": body, "divergences": divergences})

    def list_sealed(self) -> dict[int, tuple[int, str]]:
        """Return number and hash of each report, by its ledger revision."""
        query = select(reports.c.sealed_revision, reports.c.id, reports.c.hash)
        rows = self._transaction.execute(query.where(reports.c.rollout == self._rollout.number))
        return {row.sealed_revision: (row.id, row.hash) for row in rows}

    def _select_own(self) -> Select[Any]:
        return select(reports).where(reports.c.rollout == self._rollout.number)


def _build_report(row: Row[Any]) -> StoredReport:
    fields = StoredReport.__dataclass_fields__
    return StoredReport(**{name: getattr(row, COLUMN_OF.get(name, name)) for name in fields})
