"""Proposals and incidents as tables, projected from the ledger and written with it.

Lists read these tables; decisions read the ledger. `ProposalStore` lists proposals; incidents are
listed by `rollout.store.ledger.incidents`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import Row, Table, insert, select, update

from rollout.core.scope.events import LedgerEvent
from rollout.core.scope.proposal_kinds import OfKind
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import incidents, proposals

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
