"""When sites sent cases and signs of life."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func, select

from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.tables.tables import cases, heartbeats


class SiteSignStore:
    """The cases and heartbeats of one rollout's sites."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction, self._rollout = transaction, rollout

    def find_site_cases(self, site: str, since: datetime) -> set[int]:
        """Return the cases that occurred at a site since a time."""
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site == site,
            cases.c.occurred_at >= since,
        )
        return set(self._transaction.execute(query).scalars())

    def load_case_spans(self) -> dict[str, tuple[datetime, datetime]]:
        """Return by site when its first and last cases occurred, planted ones aside."""
        first, last = func.min(cases.c.occurred_at), func.max(cases.c.occurred_at)
        query = (
            select(cases.c.site, first.label("first"), last.label("last"))
            .where(cases.c.rollout == self._rollout.number, cases.c.planted.is_(None))
            .group_by(cases.c.site)
        )
        return {row.site: (row.first, row.last) for row in self._transaction.execute(query)}

    def load_last_heartbeat(self, site: str) -> datetime | None:
        """Return the time of a site's last heartbeat, or None."""
        query = select(func.max(heartbeats.c.at)).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        at: datetime | None = self._transaction.execute(query).scalar_one()
        return at

    def load_heartbeats(self, site: str, *, after: datetime | None = None) -> Sequence[datetime]:
        """Return the times of a site's heartbeats, optionally after a time."""
        query = select(heartbeats.c.at).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        if after is not None:
            query = query.where(heartbeats.c.at > after)
        return self._transaction.execute(query.order_by(heartbeats.c.at)).scalars().all()
