"""Proposals and incidents as tables: what the ledger says of each, in a row that can be listed.

They follow from the ledger alone and are written with it. Whoever lists reads these; whoever
decides folds the ledger.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Table, insert, select, update

from rollout.core.scope.events import (
    ClockCorrected,
    Event,
    IncidentAcknowledged,
    IncidentOpened,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    Renewed,
    Resumed,
    TakenOver,
    Widened,
)
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import incidents, proposals

OPEN: Final = "open"
CLOSES: Final[Mapping[type[Event], str]] = {
    ClockCorrected: "applied",
    ProposalRejected: "rejected",
    ProposalVoided: "void",
    ProposalExpired: "expired",
    Widened: "applied",
    Renewed: "applied",
    TakenOver: "applied",
    Resumed: "applied",
    PolicyApplied: "applied",
}
Rows = dict[tuple[str, str], dict[str, Any]]
Differences = Mapping[tuple[str, str], tuple[dict[str, Any] | None, dict[str, Any] | None]]


@dataclass(frozen=True, slots=True)
class Change:
    """What an event does to the row of one proposal or incident; `new` makes the row."""

    table: Table
    name: str
    values: Mapping[str, Any]
    new: bool = False


def change(revision: int, event: Event) -> Change | None:
    """Return what an event does to the tables, None where it does nothing."""
    match event:
        case ProposalRaised():
            return Change(proposals, event.proposal, _raised(revision, event), new=True)
        case IncidentOpened():
            return Change(incidents, event.incident, _opened(revision, event), new=True)
        case IncidentAcknowledged():
            acknowledgement = {"acknowledged_at": event.at, "acknowledged_by": event.by}
            return Change(incidents, event.incident, acknowledgement)
    state, proposal_id = CLOSES.get(type(event)), getattr(event, "proposal", "")
    if state is None or not proposal_id:
        return None
    closing_values = {"state": state, "closed_at": event.at, "closed_revision": revision}
    return Change(proposals, proposal_id, closing_values)


def follow(transaction: Transaction, rollout: Rollout, events: Iterable[Event], first: int) -> None:
    """Write what events do; `first` is the revision of the first of them."""
    for revision, event in enumerate(events, start=first):
        row_change = change(revision, event)
        if row_change is None:
            continue
        if row_change.new:
            row = {
                "rollout": rollout.number,
                _name(row_change.table): row_change.name,
                **row_change.values,
            }
            transaction.execute(insert(row_change.table).values(row))
        else:
            statement = update(row_change.table).where(
                row_change.table.c.rollout == rollout.number,
                row_change.table.c[_name(row_change.table)] == row_change.name,
            )
            transaction.execute(statement.values(**row_change.values))


def rows_of(events: Iterable[Event]) -> Rows:
    """Return the rows that a whole ledger comes to, by table and name."""
    rows: Rows = {}
    for revision, event in enumerate(events, start=1):
        row_change = change(revision, event)
        if row_change is not None:
            key = (row_change.table.name, row_change.name)
            rows[key] = {**rows.get(key, {}), **row_change.values}
    return rows


def differences(transaction: Transaction, rollout: Rollout, events: Iterable[Event]) -> Differences:
    """Return the rows that are not what the ledger says: as stored, and as they should be."""
    expected = rows_of(events)
    stored: Rows = {}
    for table in (proposals, incidents):
        query = select(table).where(table.c.rollout == rollout.number)
        for row in transaction.execute(query):
            columns = row._asdict()
            del columns["rollout"]
            stored[table.name, columns.pop(_name(table))] = columns
    keys = {k for k in {*stored, *expected} if stored.get(k) != expected.get(k)}
    return {k: (stored.get(k), expected.get(k)) for k in sorted(keys)}


def _name(table: Table) -> str:
    """Return the column that names a row: the key after the rollout."""
    return list(table.primary_key)[1].name


def _raised(revision: int, event: ProposalRaised) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "state": OPEN,
        "raised_at": event.at,
        "raised_by": event.by,
        "expires_at": event.expires_at,
        "closed_at": None,
        "evidence_hash": event.evidence_hash,
        "site": None if event.cell is None else event.cell.site,
        "window": None if event.cell is None else event.cell.window,
        "version": event.version,
        "to_stage": event.to_stage,
        "raised_revision": revision,
        "closed_revision": None,
    }


def _opened(revision: int, event: IncidentOpened) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "guard": event.guard,
        "site": None if event.cell is None else event.cell.site,
        "window": None if event.cell is None else event.cell.window,
        "version": event.version,
        "opened_at": event.at,
        "acknowledged_at": None,
        "acknowledged_by": None,
        "opened_revision": revision,
    }
