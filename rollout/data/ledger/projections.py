"""Proposals and incidents as tables, projected from the ledger and written with it.

Lists read these tables; decisions read the ledger. Incidents of one rollout, or of all, come newest
first.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
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
from rollout.engine.events import LedgerEvent
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
