"""Proposals and incidents as tables, projected from the ledger, written and compared with it.

Lists read these tables; decisions read the ledger. Incidents of one rollout, or of all, come newest
first.

To compare them the ledger is read once, in order. Rows are compared when `ROWS_PER_COMPARISON`
wait, and again after a later event has changed them. So memory grows only with the differences, and
with rows that are open at one time and close later.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Row,
    Select,
    Table,
    and_,
    false,
    func,
    insert,
    or_,
    select,
    true,
    update,
)

from rollout.data.database.bulk import upsert_sums
from rollout.data.database.rollouts import Rollout, RolloutRepository
from rollout.data.database.session import Repository, Transaction
from rollout.data.tables.tables import (
    account_names,
    incidents,
    ledger,
    ledger_texts,
    proposals,
    rollouts,
    unopened_incidents,
)
from rollout.engine.decide.scope import OfKind
from rollout.engine.events import LedgerEvent, ListChange
from rollout.engine.ledger.ledger import LedgerText, read_body
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm, Trigger, parse_facts
from rollout.kernel.words import say_cause

LISTS: Final = MappingProxyType({"proposals": proposals, "incidents": incidents})


def update_projections(
    transaction: Transaction, rollout: Rollout, events: Iterable[LedgerEvent], first_revision: int
) -> None:
    """Write the row changes of events; the first has `first_revision`."""
    for revision, event in enumerate(events, start=first_revision):
        change = event.change_list(revision)
        if change is None:
            continue
        table = LISTS[change.list_name]
        key_values = {"rollout": rollout.number, get_name_column(table): change.id}
        if change.is_new:
            transaction.execute(insert(table).values(**key_values, **change.values))
        else:
            conditions = (table.c[name] == value for name, value in key_values.items())
            transaction.execute(update(table).where(*conditions).values(**change.values))


def get_name_column(table: Table) -> str:
    """Return the column that names a row: the key after the rollout."""
    return list(table.primary_key)[1].name


@dataclass(frozen=True, slots=True)
class ListedProposal(OfKind):
    """A proposal of one rollout; `raised_in` and `closed_in` are revisions."""

    id: str
    kind: str
    state: str
    raised_in: int
    closed_in: int | None
    closed_at: datetime | None
    site: str
    window: str


class ProposalStore:
    """The proposals of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = proposals.c.rollout == rollout.number

    def list_page(
        self, *, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[ListedProposal]:
        """Return proposals, newest first.

        `states` are open, applied, rejected, void and expired; () selects all. `before` is the
        revision at which the previous page ended.
        """
        query = select(proposals).where(self._own).order_by(proposals.c.raised_revision.desc())
        if states:
            query = query.where(proposals.c.state.in_(states))
        if before is not None:
            query = query.where(proposals.c.raised_revision < before)
        return [_build_proposal(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, proposal_id: str) -> ListedProposal | None:
        """Return the proposal with this id, or None."""
        query = select(proposals).where(self._own, proposals.c.proposal == proposal_id)
        return self._transaction.find(query, _build_proposal)


def _build_proposal(row: Row[Any]) -> ListedProposal:
    return ListedProposal(
        id=row.proposal,
        kind=row.kind,
        state=row.state,
        raised_in=row.raised_revision,
        closed_in=row.closed_revision,
        closed_at=row.closed_at,
        site=row.site or "",
        window=row.window or "",
    )


class UnopenedIncidents(RolloutRepository):
    """The numbers of one rollout, by kind and cell; they only grow."""

    def add(self, kind: str, numbers: Mapping[Cell | None, int]) -> None:
        """Add to the numbers of some cells; None means no cell."""
        rows = [
            (
                self._rollout.number,
                kind,
                "" if cell is None else cell.site,
                "" if cell is None else cell.window,
                number,
            )
            for cell, number in numbers.items()
        ]
        upsert_sums(self._transaction, unopened_incidents, sorted(rows), "number")

    def load_numbers(self) -> Mapping[tuple[str, str, str], int]:
        """Return the numbers by kind, site and window; both are "" without a cell."""
        query = select(unopened_incidents).where(
            unopened_incidents.c.rollout == self._rollout.number
        )
        return {
            (row.kind, row.site, row.window): row.number for row in self._transaction.execute(query)
        }


@dataclass(frozen=True, slots=True)
class ReadableSite:
    """A site that a user may read; "" means all."""

    rollout: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True)
class IncidentCursor:
    """The last incident of a page: its time, rollout number and revision."""

    at: datetime
    rollout: int
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedIncident:
    """An incident of one rollout.

    `revision` is of the entry that opened it; `site` "" means no cell.
    """

    id: str
    kind: str
    guard: str
    site: str
    window: str
    version: str
    opened_at: datetime
    revision: int
    acknowledged_at: datetime | None
    acknowledged_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRow(ListedIncident):
    """An incident of any rollout with its ledger entry's texts."""

    rollout: str
    did: str
    reason: str
    cursor: IncidentCursor


class AllIncidents(Repository):
    """The incidents of all rollouts."""

    def list_page(
        self,
        readable_sites: Collection[ReadableSite],
        *,
        acknowledged: bool,
        before: IncidentCursor | None = None,
        limit: int,
    ) -> list[IncidentRow]:
        """Return incidents of the readable sites, newest first.

        Incidents without a site are readable with any site of the rollout. `acknowledged` selects
        the acknowledged or the open ones; `before` is the end of the previous page.
        """
        query = (
            _select_with_ledger_row()
            .where(or_(false(), *map(_is_readable, readable_sites)), _has_state(acknowledged))
            .order_by(*(column.desc() for column in PAGE_ORDER))
            .limit(limit)
        )
        if before is not None:
            query = query.where(_is_after(before))
        rows = self._transaction.execute(query).all()
        accounts = {json.loads(row.body).get("about", "") for row in rows} - {""}
        names = {
            row.account: row.name
            for row in self._transaction.execute(
                select(account_names).where(account_names.c.account.in_(accounts))
            )
        }
        return [_build_row(row, names) for row in rows]


REASONS, ABOUTS = ledger_texts.alias("reasons"), ledger_texts.alias("abouts")


def _select_with_ledger_row() -> Select[Any]:
    """Return the query of incidents with their opening ledger rows."""
    columns = (rollouts.c.name, ledger.c.body, ledger.c.kind.label("row_kind"))
    is_opening_row = (
        ledger.c.rollout == incidents.c.rollout,
        ledger.c.revision == incidents.c.opened_revision,
    )
    return (
        select(incidents, *columns, REASONS.c.text.label("reason"), ABOUTS.c.text.label("about"))
        .join(rollouts, rollouts.c.id == incidents.c.rollout)
        .join(ledger, and_(*is_opening_row))
        .join(REASONS, _is_text(REASONS, "reason"), isouter=True)
        .join(ABOUTS, _is_text(ABOUTS, "about"), isouter=True)
    )


def _is_text(texts: FromClause, field: str) -> ColumnElement[bool]:
    return and_(
        texts.c.rollout == incidents.c.rollout,
        texts.c.revision == incidents.c.opened_revision,
        texts.c.field == field,
    )


def _has_state(acknowledged: bool) -> ColumnElement[bool]:
    acknowledged_at = incidents.c.acknowledged_at
    return acknowledged_at.is_not(None) if acknowledged else acknowledged_at.is_(None)


PAGE_ORDER = (incidents.c.opened_at, incidents.c.rollout, incidents.c.opened_revision)


def _is_readable(readable: ReadableSite) -> ColumnElement[bool]:
    is_rollout = true() if not readable.rollout else rollouts.c.name == readable.rollout
    if not readable.site:
        return and_(is_rollout)
    return and_(is_rollout, or_(incidents.c.site == readable.site, incidents.c.site.is_(None)))


def _is_after(cursor: IncidentCursor) -> ColumnElement[bool]:
    at, rollout, revision = PAGE_ORDER
    return or_(
        at < cursor.at,
        and_(at == cursor.at, rollout < cursor.rollout),
        and_(at == cursor.at, rollout == cursor.rollout, revision < cursor.revision),
    )


def _build_row(row: Row[Any], names: Mapping[str, str | None]) -> IncidentRow:
    stored_texts = {
        name: LedgerText(b"", text)
        for name, text in (("reason", row.reason), ("about", row.about))
        if text is not None
    }
    body = read_body(row.row_kind, json.loads(row.body), stored_texts)
    about = names.get(body["about"]) or body["about"]
    alarms = (parse_facts(StoredAlarm, alarm) for alarm in body.get("alarms", ()))
    trigger = parse_facts(Trigger, body["trigger"]) if "trigger" in body else None
    return IncidentRow(
        **_read_columns(row),
        rollout=row.name,
        did=body["effect"],
        reason=say_cause(body["reason"], trigger, alarms, about, row.version),
        cursor=IncidentCursor(row.opened_at, row.rollout, row.opened_revision),
    )


class IncidentStore:
    """The incidents of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = incidents.c.rollout == rollout.number

    def list_page(
        self, *, acknowledged: bool | None = None, before: int | None = None, limit: int = 100
    ) -> list[ListedIncident]:
        """Return incidents, newest first.

        `acknowledged` selects the acknowledged or the open ones; `before` is the revision at which
        the previous page ended.
        """
        query = select(incidents).where(self._own).order_by(incidents.c.opened_revision.desc())
        if acknowledged is not None:
            query = query.where(_has_state(acknowledged))
        if before is not None:
            query = query.where(incidents.c.opened_revision < before)
        return [_build_incident(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, incident_id: str) -> ListedIncident | None:
        """Return the incident with this id, or None."""
        query = select(incidents).where(self._own, incidents.c.incident == incident_id)
        return self._transaction.find(query, _build_incident)


def _build_incident(row: Row[Any]) -> ListedIncident:
    return ListedIncident(**_read_columns(row))


def _read_columns(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.incident,
        "kind": row.kind,
        "guard": row.guard,
        "site": row.site or "",
        "window": row.window or "",
        "version": row.version,
        "opened_at": row.opened_at,
        "revision": row.opened_revision,
        "acknowledged_at": row.acknowledged_at,
        "acknowledged_by": row.acknowledged_by or "",
    }


ROWS_PER_COMPARISON: Final = 500
CHECKED_TABLES: Final[Mapping[str, Table]] = {table.name: table for table in (incidents, proposals)}
RowKey = tuple[str, str]
"""The names of a table and of a row."""

RowValues = dict[str, Any]
RowPair = tuple[RowValues | None, RowValues | None]
EventReader = Callable[[], Iterable[LedgerEvent]]
"""Reads a ledger from its first event."""


def find_differences(
    transaction: Transaction, rollout: Rollout, read_events: EventReader
) -> dict[RowKey, RowPair]:
    """Return rows that differ from the ledger: stored and expected, by key."""
    check = _ProjectionCheck(transaction, rollout)
    for change in _list_changes(read_events):
        check.add_change(change)
    differences = check.finish(read_events)
    return {key: differences[key] for key in sorted(differences)}


def _list_changes(read_events: EventReader) -> Iterator[ListChange]:
    for revision, event in enumerate(read_events(), start=1):
        if change := event.change_list(revision):
            yield change


class _ProjectionCheck(RolloutRepository):
    """The ledger's rows that wait to be compared, and the differences so far."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        super().__init__(transaction, rollout)
        self._rows: dict[RowKey, RowValues] = {}
        self._new_keys: set[RowKey] = set()
        self._differences: dict[RowKey, RowPair] = {}
        self._found_count = 0  # rows of the ledger that are stored

    def add_change(self, change: ListChange) -> None:
        """Add the next change of a row."""
        key = (change.list_name, change.id)
        if change.is_new:
            self._new_keys.add(key)
        elif key not in self._rows:
            self._rows[key] = self._load_expected(key)
        self._rows[key] = {**self._rows.get(key, {}), **change.values}
        if len(self._rows) >= ROWS_PER_COMPARISON:
            self._compare_rows()

    def finish(self, read_events: EventReader) -> Mapping[RowKey, RowPair]:
        """Compare the last rows, find those that the ledger lacks, and return all differences."""
        self._compare_rows()
        if self._found_count != sum(map(self._count_stored, CHECKED_TABLES.values())):
            self._add_unknown_rows(read_events)
        return self._differences

    def _load_expected(self, key: RowKey) -> RowValues:
        """Return a row that was compared before; without a difference the stored one is right."""
        if key in self._differences:
            return self._differences[key][1] or {}
        return self._load_stored([key]).get(key, {})

    def _compare_rows(self) -> None:
        stored = self._load_stored(self._rows)
        for key, expected_row in self._rows.items():
            stored_row = stored.get(key)
            self._found_count += key in self._new_keys and stored_row is not None
            if stored_row == expected_row:
                self._differences.pop(key, None)
            else:
                self._differences[key] = (stored_row, expected_row)
        self._rows, self._new_keys = {}, set()

    def _add_unknown_rows(self, read_events: EventReader) -> None:
        """Add the stored rows that no event of the ledger created, from the names of all."""
        keys = {
            (name, row_name)
            for name, table in CHECKED_TABLES.items()
            for row_name in self._list_names(table)
        }
        for change in _list_changes(read_events):
            if change.is_new:
                keys.discard((change.list_name, change.id))
        self._differences |= {key: (row, None) for key, row in self._load_stored(keys).items()}

    def _load_stored(self, keys: Collection[RowKey]) -> dict[RowKey, RowValues]:
        stored: dict[RowKey, RowValues] = {}
        for table_name, table in CHECKED_TABLES.items():
            names = [row_name for name, row_name in keys if name == table_name]
            name_column = table.c[get_name_column(table)]
            for start in range(0, len(names), ROWS_PER_COMPARISON):
                part = names[start : start + ROWS_PER_COMPARISON]
                query = select(table).where(table.c.rollout == self._rollout.number)
                for row in self._transaction.execute(query.where(name_column.in_(part))):
                    row_name, values = _split_row(row, table)
                    stored[table_name, row_name] = values
        return stored

    def _list_names(self, table: Table) -> Iterator[str]:
        return self._transaction.execute(
            select(table.c[get_name_column(table)]).where(table.c.rollout == self._rollout.number)
        ).scalars()

    def _count_stored(self, table: Table) -> int:
        own = select(func.count()).select_from(table).where(table.c.rollout == self._rollout.number)
        return int(self._transaction.execute(own).scalar_one())


def _split_row(row: Row[Any], table: Table) -> tuple[str, RowValues]:
    """Return a stored row's name and its other columns."""
    values = row._asdict()
    del values["rollout"]
    return values.pop(get_name_column(table)), values
