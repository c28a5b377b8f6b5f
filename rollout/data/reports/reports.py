"""Reports, the requests and runs that make them, and their deliveries to channels.

Reports are sealed under a hash: each version is stored once and never changes.

Deliveries are stored with the report, and tried until sent. The row is both outbox and record.

Outboxes: one process at a time takes each row that is due. The table has the columns `id`, `state`,
`channel`, `attempts`, `next_attempt_at`, `sent_at` and `error`. Taking a row counts an attempt and
moves the next one past a lease, so after a crash it is tried again.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from rollout.data.database.bulk import insert_once
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Transaction
from rollout.data.tables.tables import deliveries, report_requests, report_runs, reports, rollouts

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


class ReportRuns(RolloutRepository):
    """The report runs of one rollout."""

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
        return self._transaction.execute(statement.values(owner=owner, claimed_at=at)).rowcount == 1

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportEdition:
    """Which version of a report it is, of which period.

    Attributes:
        name: shared by all versions.
        view: the view that is shown first; all views can be read.
        since, until: period of the cases; the end is excluded.
        version: starts at 1; grows when the content of the same period changes.
        state: `provisional` while cases of the period are open, then `final`.
        due: when the last of these cases closes; None without open cases.
    """

    name: str
    view: str
    since: datetime
    until: datetime
    version: int
    state: str
    due: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReport(ReportEdition):
    """A version of a report.

    Attributes:
        schema: form of the body.
        body: the sealed text, JSON.
        divergences: all divergences as CSV; the body holds its hash.
        sealed_in: the ledger revision that cites the hash.
        seal: the hash that recipients and ledger cite; "" means the SHA-256 of the body.
    """

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
class ReportSummary(ReportEdition):
    """A report in a list, without its content; `id` is its number."""

    id: int
    hash: str
    made_at: datetime


class ReportStore(RolloutRepository):
    """The reports of one rollout."""

    def store(self, report: StoredReport) -> int:
        """Store a version and return its number."""
        columns = {COLUMN_OF.get(name, name): value for name, value in asdict(report).items()}
        row = {"rollout": self._rollout.number, **columns, "hash": report.hash}
        statement = insert(reports).returning(reports.c.id)
        return int(self._transaction.execute(statement, row).scalar_one())

    def get(self, number: int) -> StoredReport | None:
        """Return the report with this number, or None."""
        return self._transaction.find(
            self._select_own().where(reports.c.id == number), _build_report
        )

    def find_newest(
        self, name: str, since: datetime, until: datetime
    ) -> tuple[int, StoredReport] | None:
        """Return a period's newest report with its number, or None."""
        conditions = (reports.c.name == name, reports.c.since == since, reports.c.until == until)
        query = self._select_own().where(*conditions).order_by(reports.c.version.desc()).limit(1)
        return self._transaction.find(query, lambda row: (row.id, _build_report(row)))

    def list_before(
        self, number: int | None = None, *, name: str | None = None, limit: int = 100
    ) -> Sequence[ReportSummary]:
        """Return report summaries before a number, newest first."""
        fields = ReportSummary.__dataclass_fields__
        columns = (reports.c[COLUMN_OF.get(field, field)].label(field) for field in fields)
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


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery to queue: report, channel, reason, subject and introduction."""

    report: int
    channel: str
    reason: str
    subject: str
    lead: str = ""


WAITING = "waiting"
SENT, FAILED = "sent", "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRow:
    """What is on its way: waiting, sent or failed; `attempts` includes the current one.

    `error` is that of the last attempt, without secrets; "" for none.
    """

    id: int
    state: str
    attempts: int
    sent_at: datetime | None
    error: str


class DueRows:
    """The rows of an outbox; with conditions, only those that fulfil them are due."""

    def __init__(
        self, transaction: Transaction, table: Table, *conditions: ColumnElement[bool]
    ) -> None:
        self._transaction, self._table, self._conditions = transaction, table, conditions

    def has_due(self, *, at: datetime, excluded_channels: Collection[str] = ()) -> bool:
        """Return whether `take_next` would return a row, without locking."""
        query = select(self._table.c.id).where(*self._match_due(at, excluded_channels)).limit(1)
        return self._transaction.execute(query).first() is not None

    def record_sent(self, row: OutboxRow, *, at: datetime) -> bool:
        """Record that it was sent; False if another process took it."""
        return self._update(row, state=SENT, sent_at=at, next_attempt_at=None, error="")

    def retry_later(self, row: OutboxRow, *, at: datetime, error: str) -> bool:
        """Move the next attempt to `at`; False if another process took it."""
        return self._update(row, next_attempt_at=at, error=error)

    def close(self, row: OutboxRow, state: str, *, error: str) -> bool:
        """End the attempts with a state; False if another process took it."""
        return self._update(row, state=state, next_attempt_at=None, error=error)

    def _take_due(
        self, at: datetime, lease: timedelta, excluded_channels: Collection[str]
    ) -> int | None:
        """Take the row that is due longest and return its id, or None.

        It becomes due again after `lease`, unless its result is recorded.
        """
        table = self._table
        query = (
            select(table.c.id)
            .where(*self._match_due(at, excluded_channels))
            .order_by(table.c.next_attempt_at, table.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        number: int | None = self._transaction.execute(query).scalar()
        if number is not None:
            values = {"attempts": table.c.attempts + 1, "next_attempt_at": at + lease}
            self._transaction.execute(update(table).where(table.c.id == number).values(**values))
        return number

    def _match_due(
        self, at: datetime, excluded_channels: Collection[str]
    ) -> tuple[ColumnElement[bool], ...]:
        return (
            self._table.c.state == WAITING,
            self._table.c.next_attempt_at <= at,
            self._table.c.channel.not_in(excluded_channels),
            *self._conditions,
        )

    def _update(self, row: OutboxRow, **values: Any) -> bool:
        columns = self._table.c
        statement = update(self._table).where(
            columns.id == row.id, columns.attempts == row.attempts, columns.state == WAITING
        )
        return self._transaction.execute(statement.values(**values)).rowcount == 1


@dataclass(frozen=True, slots=True)
class Delivery(OutboxRow):
    """A report on its way to a channel.

    Attributes:
        queued_at: when the report was sealed.
        next_at: time of the next attempt; None without one.
    """

    rollout: str
    request: NewDelivery
    queued_at: datetime
    next_at: datetime | None


class Outbox(DueRows):
    """The deliveries of all rollouts; with `reasons`, only those queued for these are due."""

    def __init__(self, transaction: Transaction, reasons: Collection[str] | None = None) -> None:
        chosen = () if reasons is None else (deliveries.c.reason.in_(reasons),)
        super().__init__(transaction, deliveries, *chosen)

    def take_next(
        self, *, at: datetime, lease: timedelta, excluded_channels: Collection[str] = ()
    ) -> Delivery | None:
        """Return a due delivery and count an attempt, or None.

        It becomes due again after `lease`, unless its result is recorded.
        """
        number = self._take_due(at, lease, excluded_channels)
        if number is None:
            return None
        row = self._transaction.execute(_select_deliveries().where(deliveries.c.id == number)).one()
        return _build_delivery(row)


class DeliveryStore(RolloutRepository):
    """The deliveries of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction, rollout)
        self._own = deliveries.c.rollout == rollout.number

    def add(self, request: NewDelivery, *, at: datetime) -> bool:
        """Queue a report for a channel once; return whether it is new."""
        row = {
            "rollout": self._rollout.number,
            "report": request.report,
            "channel": request.channel,
            "reason": request.reason,
            "subject": request.subject,
            "intro": request.lead,
            "state": WAITING,
            "attempts": 0,
            "queued_at": at,
            "next_attempt_at": at,
            "error": "",
        }
        return insert_once(self._transaction, deliveries, row)

    def find(self, number: int) -> Delivery | None:
        """Return the delivery with this number, or None."""
        return self._transaction.find(
            self._select_own().where(deliveries.c.id == number), _build_delivery
        )

    def get_for_report(self, report: int, channel: str) -> Delivery:
        """Return the queued delivery of a report to a channel.

        Raises:
            NoResultFound: none was queued.
        """
        conditions = (deliveries.c.report == report, deliveries.c.channel == channel)
        return _build_delivery(
            self._transaction.execute(self._select_own().where(*conditions)).one()
        )

    def list_page(
        self, *, state: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[Delivery]:
        """Return deliveries before a number, newest first, of one state or all."""
        query = self._select_own().order_by(deliveries.c.id.desc()).limit(limit)
        if state is not None:
            query = query.where(deliveries.c.state == state)
        if before is not None:
            query = query.where(deliveries.c.id < before)
        return [_build_delivery(row) for row in self._transaction.execute(query)]

    def retry(self, number: int, *, at: datetime) -> bool:
        """Queue a failed delivery again; return False if it has not failed.

        A waiting delivery may be in progress and stays as it is.
        """
        failed_conditions = (deliveries.c.id == number, deliveries.c.state == FAILED)
        statement = update(deliveries).where(self._own, *failed_conditions)
        values = {"state": WAITING, "attempts": 0, "next_attempt_at": at}
        return self._transaction.execute(statement.values(**values)).rowcount == 1

    def count_failed(self) -> int:
        """Return the number of failed deliveries."""
        query = select(func.count()).where(self._own, deliveries.c.state == FAILED)
        return int(self._transaction.execute(query).scalar_one())

    def _select_own(self) -> Select[Any]:
        return _select_deliveries().where(self._own)


def _select_deliveries() -> Select[Any]:
    same_rollout = deliveries.c.rollout == rollouts.c.id
    return select(deliveries, rollouts.c.name.label("name")).join(rollouts, same_rollout)


def _build_delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        rollout=row.name,
        request=NewDelivery(row.report, row.channel, row.reason, row.subject, row.intro),
        state=row.state,
        attempts=row.attempts,
        queued_at=row.queued_at,
        next_at=row.next_attempt_at,
        sent_at=row.sent_at,
        error=row.error,
    )


def list_deliveries_of_report(
    transaction: Transaction, rollout: Rollout, report: int
) -> list[Delivery]:
    """Return the deliveries of a report, in the order of their queueing."""
    conditions = (deliveries.c.rollout == rollout.number, deliveries.c.report == report)
    query = _select_deliveries().where(*conditions).order_by(deliveries.c.id)
    return [_build_delivery(row) for row in transaction.execute(query)]
