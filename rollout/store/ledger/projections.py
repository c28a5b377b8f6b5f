"""Proposals and incidents as tables, projected from the ledger and written with it.

Lists read these tables; decisions read the ledger. `ProposalStore` lists proposals; incidents are
listed by `rollout.store.ledger.incidents`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Table, insert, select, update

from rollout.core.scope.events import (
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
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

OPEN_STATE: Final = "open"
CLOSING_STATES: Final[Mapping[type[LedgerEvent], str]] = {
    ProposalRejected: "rejected",
    ProposalVoided: "void",
    ProposalExpired: "expired",
    Widened: "applied",
    Renewed: "applied",
    TakenOver: "applied",
    Resumed: "applied",
    PolicyApplied: "applied",
}


@dataclass(frozen=True, slots=True)
class RowChange:
    """The change of a proposal's or incident's row; `is_new` inserts it."""

    table: Table
    name: str
    values: Mapping[str, Any]
    is_new: bool = False


def find_row_change(revision: int, event: LedgerEvent) -> RowChange | None:
    """Return the row change of an event, or None."""
    match event:
        case ProposalRaised():
            return RowChange(
                proposals, event.proposal, _build_proposal_row(revision, event), is_new=True
            )
        case IncidentOpened():
            return RowChange(
                incidents, event.incident, _build_incident_row(revision, event), is_new=True
            )
        case IncidentAcknowledged():
            acknowledgement = {"acknowledged_at": event.at, "acknowledged_by": event.by}
            return RowChange(incidents, event.incident, acknowledgement)
    state, proposal_id = CLOSING_STATES.get(type(event)), getattr(event, "proposal", "")
    if state is None or not proposal_id:
        return None
    closing_values = {"state": state, "closed_at": event.at, "closed_revision": revision}
    return RowChange(proposals, proposal_id, closing_values)


def update_projections(
    transaction: Transaction, rollout: Rollout, events: Iterable[LedgerEvent], first_revision: int
) -> None:
    """Write the row changes of events; the first has `first_revision`."""
    for revision, event in enumerate(events, start=first_revision):
        row_change = find_row_change(revision, event)
        if row_change is None:
            continue
        table = row_change.table
        key_values = {"rollout": rollout.number, get_name_column(table): row_change.name}
        if row_change.is_new:
            transaction.execute(insert(table).values(**key_values, **row_change.values))
        else:
            conditions = (table.c[name] == value for name, value in key_values.items())
            transaction.execute(update(table).where(*conditions).values(**row_change.values))


def get_name_column(table: Table) -> str:
    """Return the column that names a row: the key after the rollout."""
    return list(table.primary_key)[1].name


def _build_proposal_row(revision: int, event: ProposalRaised) -> dict[str, Any]:
    return {
        "kind": event.kind,
        "state": OPEN_STATE,
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


def _build_incident_row(revision: int, event: IncidentOpened) -> dict[str, Any]:
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


@dataclass(frozen=True, slots=True)
class ListedProposal:
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
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _build_proposal(row)


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
