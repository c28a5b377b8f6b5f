"""What a report needs of a period besides records: cases, actions, open reviews, last arrivals."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, Select, case, func, select, type_coerce

from rollout.data.database.rollouts import RolloutRepository, match_cases
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.reviews.reviews import OPEN
from rollout.data.tables.columns import InstantType
from rollout.data.tables.tables import actions, cases, heartbeats, reviews
from rollout.engine.records.reviews import BLIND_KINDS, SEEDED

ACTION_COLUMNS = ("lever", "action", "by", "version", "at", "authorization", "permit_kind")


class PeriodRecords(RolloutRepository):
    """Cases, actions and reviews of one rollout in a period."""

    def list_cases(self, since: datetime, until: datetime) -> set[int]:
        """Return the cases that occurred in a period; its end is excluded.

        A corrected case belongs to the period of each of its revisions; the caller picks the last
        one.
        """
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.occurred_at >= since,
            cases.c.occurred_at < until,
        )
        return set(self._transaction.execute(query).scalars())

    def list_blind_cases(self, at: datetime, *, with_gold: bool = True) -> set[int]:
        """Return the cases that a reviewer may still decide blind."""
        kinds = [kind for kind in BLIND_KINDS if with_gold or kind != SEEDED]
        query = select(reviews.c.case_id).where(
            reviews.c.rollout == self._rollout.number,
            reviews.c.state == OPEN,
            reviews.c.kind.in_(kinds),
            (reviews.c.due_at.is_(None)) | (reviews.c.due_at > at),
        )
        return set(self._transaction.execute(query).scalars())

    def list_attributes(self, case_ids: Collection[int]) -> list[str]:
        """Return the sorted names of all attributes of some cases."""
        query = select(cases.c.attributes).where(
            *match_cases(self._transaction, self._rollout, cases, case_ids),
        )
        attribute_maps = self._transaction.execute(query).scalars()
        return sorted({name for attributes in attribute_maps for name in attributes})

    def load_actions(
        self, case_ids: Collection[int], schema: Mapping[str, pl.DataType]
    ) -> pl.DataFrame:
        """Return the last action on each lever of some cases.

        `schema` has case_key first, then the columns of `ACTION_COLUMNS`.
        """
        query = select(actions).where(
            *match_cases(self._transaction, self._rollout, actions, case_ids),
        )
        rows = self._transaction.execute(
            query.order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        newest_rows = {(row.case_id, row.lever): row for row in rows}
        keys = ExternalKeys(self._transaction, self._rollout).find_keys({n for n, _ in newest_rows})
        values = [
            (keys[case_id], *(getattr(row, name) for name in ACTION_COLUMNS))
            for (case_id, _), row in newest_rows.items()
            if case_id in keys
        ]
        return pl.DataFrame(values, schema=dict(schema), orient="row")

    def count_open_reviews(
        self, since: datetime, at: datetime, soon_until: datetime
    ) -> list[tuple[str, int, int, int, datetime | None]]:
        """Return by site the reviews open, overdue and due soon.

        Rows are (site, open, overdue since `since`, due by `soon_until`, opening time of the oldest
        open one). Sites without any of them are omitted.
        """
        due_at = reviews.c.due_at
        is_wanted = due_at.is_(None) | (due_at > at)
        is_overdue = (due_at >= since) & (due_at <= at)
        query = self._group_by_site(
            {
                "open": is_wanted,
                "overdue": is_overdue,
                "expiring": is_wanted & (due_at <= soon_until),
            },
            is_wanted,
        )
        rows = self._transaction.execute(query)
        counts_by_site = [(r.site, r.open, r.overdue, r.expiring, r.oldest) for r in rows]
        return [row for row in counts_by_site if any(row[1:4])]

    def _group_by_site(
        self, counts: Mapping[str, ColumnElement[bool]], is_wanted: ColumnElement[bool]
    ) -> Select[Any]:
        oldest = func.min(case((is_wanted, reviews.c.opened_at)))
        return (
            select(
                reviews.c.site,
                *(
                    func.sum(case((condition, 1), else_=0)).label(name)
                    for name, condition in counts.items()
                ),
                type_coerce(oldest, InstantType).label("oldest"),
            )
            .where(reviews.c.rollout == self._rollout.number, reviews.c.state == OPEN)
            .group_by(reviews.c.site)
            .order_by(reviews.c.site)
        )

    def load_last_received(self) -> dict[str, datetime]:
        """Return by site when its last case or heartbeat was received, planted cases aside."""
        last_received: dict[str, datetime] = {}
        for table in (cases, heartbeats):
            last_received_at = type_coerce(func.max(table.c.received_at), InstantType).label("at")
            is_natural = (cases.c.planted.is_(None),) if table is cases else ()
            query = (
                select(table.c.site, last_received_at)
                .where(table.c.rollout == self._rollout.number, *is_natural)
                .group_by(table.c.site)
            )
            for row in self._transaction.execute(query):
                last_received[row.site] = max(row.at, last_received.get(row.site, row.at))
        return dict(sorted(last_received.items()))
