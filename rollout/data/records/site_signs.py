"""When cases occurred at a site, and its heartbeats."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import BigInteger, func, literal_column, select, type_coerce

from rollout.data.database.bulk import encode_driver_values, select_texts
from rollout.data.database.rollouts import RolloutRepository
from rollout.data.tables.tables import cases, heartbeats


class SiteSignStore(RolloutRepository):
    """The cases and heartbeats of one rollout's sites."""

    def find_site_cases(self, site: str, since: datetime) -> set[int]:
        """Return the cases that occurred at a site since a time."""
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.site == site,
            cases.c.occurred_at >= since,
        )
        return set(self._transaction.execute(query).scalars())

    def load_case_spans(self, sites: Collection[str]) -> dict[str, tuple[datetime, datetime]]:
        """Return by site when its first and last cases occurred, planted ones aside.

        The index gives both ends of each site; a group-by would read all cases.
        """
        listed_sites = select_texts(self._transaction.engine, "sites").subquery("listed_sites")
        own_cases = (
            select(cases.c.occurred_at)
            .where(cases.c.rollout == self._rollout.number, cases.c.planted.is_(None))
            .where(cases.c.site == listed_sites.c.value)
            .limit(literal_column("1"))
        )
        ends = [
            own_cases.order_by(order).correlate(listed_sites).scalar_subquery().label(name)
            for name, order in (
                ("first", cases.c.occurred_at),
                ("last", cases.c.occurred_at.desc()),
            )
        ]
        engine = self._transaction.engine
        texts = encode_driver_values(engine, sites)
        rows = self._transaction.execute(select(listed_sites.c.value, *ends), {"sites": texts})
        return {row.value: (row.first, row.last) for row in rows if row.first is not None}

    def load_last_heartbeat(self, site: str) -> datetime | None:
        """Return the time of a site's last heartbeat, or None."""
        query = select(func.max(heartbeats.c.at)).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        at: datetime | None = self._transaction.execute(query).scalar_one()
        return at

    def load_heartbeats(self, site: str, *, after: int | None = None) -> Sequence[int]:
        """Return the times of a site's heartbeats, optionally after a time; in microseconds."""
        at = type_coerce(heartbeats.c.at, BigInteger)
        query = select(at).where(
            heartbeats.c.rollout == self._rollout.number, heartbeats.c.site == site
        )
        if after is not None:
            query = query.where(at > after)
        return self._transaction.execute(query.order_by(at)).scalars().all()
