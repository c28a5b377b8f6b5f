"""Incidents as they can be listed, the newest first."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from rollout.store.rollouts import Rollout
from rollout.store.session import Transaction
from rollout.store.tables import incidents


@dataclass(frozen=True, slots=True)
class ListedIncident:
    """One incident's row. `opened_in` is a revision; `site` "" is about no cell."""

    id: str
    kind: str
    guard: str
    site: str
    window: str
    version: str
    opened_at: datetime
    opened_in: int
    acknowledged_at: datetime | None
    acknowledged_by: str


class Incidents:
    """Every incident that was ever opened in one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._own = incidents.c.rollout == rollout.number

    def page(
        self, *, acknowledged: bool | None = None, before: int | None = None, limit: int = 100
    ) -> list[ListedIncident]:
        """Return incidents, the newest first.

        Args:
            acknowledged: only those that somebody has acknowledged, or only the open ones.
            before: the revision that the page before ended at.
            limit: how many at most.
        """
        query = select(incidents).where(self._own).order_by(incidents.c.opened_revision.desc())
        if acknowledged is not None:
            seen = incidents.c.acknowledged_at
            query = query.where(seen.is_not(None) if acknowledged else seen.is_(None))
        if before is not None:
            query = query.where(incidents.c.opened_revision < before)
        return [_listed(row) for row in self._transaction.execute(query.limit(limit))]

    def find(self, incident: str) -> ListedIncident | None:
        """Return the incident of that id, None where none was ever opened."""
        query = select(incidents).where(self._own, incidents.c.incident == incident)
        row = self._transaction.execute(query).one_or_none()
        return None if row is None else _listed(row)


def _listed(row: Row[Any]) -> ListedIncident:
    return ListedIncident(
        id=row.incident,
        kind=row.kind,
        guard=row.guard,
        site=row.site or "",
        window=row.window or "",
        version=row.version,
        opened_at=row.opened_at,
        opened_in=row.opened_revision,
        acknowledged_at=row.acknowledged_at,
        acknowledged_by=row.acknowledged_by or "",
    )
