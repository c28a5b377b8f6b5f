"""Proposals as they can be listed: open ones and closed ones, the newest first."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import proposals


@dataclass(frozen=True, slots=True)
class ListedProposal:
    """One proposal's row. `raised_in` and `closed_in` are revisions; `site` "" is about no cell."""

    id: str
    kind: str
    state: str
    raised_in: int
    closed_in: int | None
    closed_at: datetime | None
    site: str
    window: str


class Proposals:
    """Every proposal that was ever raised in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = proposals.c.rollout == rollout.number

    def page(
        self, *, states: Sequence[str] = (), before: int | None = None, limit: int = 100
    ) -> list[ListedProposal]:
        """Return proposals, the newest first.

        Args:
            states: open, applied, rejected, void, expired; () for all of them.
            before: the revision that the page before ended at.
            limit: how many at most.
        """
        query = select(proposals).where(self._own).order_by(proposals.c.raised_revision.desc())
        if states:
            query = query.where(proposals.c.state.in_(states))
        if before is not None:
            query = query.where(proposals.c.raised_revision < before)
        return [_listed(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, proposal: str) -> ListedProposal | None:
        """Return the proposal of that id, None where none was ever raised."""
        query = select(proposals).where(self._own, proposals.c.proposal == proposal)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _listed(row)


def _listed(row: Row[Any]) -> ListedProposal:
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
