"""What a report asks of a span of time beside its records: its cases, what was done, who waits."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, Select, case, func, select, type_coerce

from rollout.core.records.reviews import UNSEEN
from rollout.store.database import value_lists
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.external_keys import CallerKeys
from rollout.store.reviews.reviews import OPEN
from rollout.store.tables.columns import Instant
from rollout.store.tables.tables import actions, cases, heartbeats, reviews

ACTION = ("lever", "action", "by", "version", "at", "authorization")


class Spans:
    """Spans of time of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def cases(self, since: datetime, until: datetime) -> set[int]:
        """Return the cases that occurred from an instant up to another, which is outside.

        A case that was corrected is in every span that one of its revisions names: who reads its
        records sees which of them holds.
        """
        query = select(cases.c.case_id).where(
            cases.c.rollout == self._rollout.number,
            cases.c.occurred_at >= since,
            cases.c.occurred_at < until,
        )
        return set(self._transaction.execute(query).scalars())

    def unseen(self, at: datetime) -> set[int]:
        """Return the cases that somebody may still judge without the model's answer in sight."""
        query = select(reviews.c.case_id).where(
            reviews.c.rollout == self._rollout.number,
            reviews.c.state == OPEN,
            reviews.c.kind.in_(UNSEEN),
            (reviews.c.due_at.is_(None)) | (reviews.c.due_at > at),
        )
        return set(self._transaction.execute(query).scalars())

    def attributes(self, case_ids: Collection[int]) -> list[str]:
        """Return the names of all attributes that some cases have, sorted."""
        query = select(cases.c.attributes).where(
            cases.c.rollout == self._rollout.number,
            cases.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        attribute_maps = self._transaction.execute(query).scalars()
        return sorted({name for attributes in attribute_maps for name in attributes})

    def actions(self, case_ids: Collection[int], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
        """Return what was done about some cases: of each lever the last revision.

        Args:
            case_ids: the cases.
            schema: case_key, then what stands in the columns of `ACTION`.
        """
        query = select(actions).where(
            actions.c.rollout == self._rollout.number,
            actions.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
        )
        rows = self._transaction.execute(
            query.order_by(actions.c.case_id, actions.c.lever, actions.c.revision)
        )
        newest_rows = {(row.case_id, row.lever): row for row in rows}
        keys = CallerKeys(self._transaction, self._rollout).keys_of({n for n, _ in newest_rows})
        values = [
            (keys[case_id], *(getattr(row, name) for name in ACTION))
            for (case_id, _), row in newest_rows.items()
            if case_id in keys
        ]
        return pl.DataFrame(values, schema=dict(schema), orient="row")

    def waiting(
        self, since: datetime, at: datetime, soon: datetime
    ) -> list[tuple[str, int, int, int, datetime | None]]:
        """Return by site how many reviews are open, overdue since an instant, and due soon.

        The last of each row is when the oldest open one was opened. Sites without any are left
        out.
        """
        due_at = reviews.c.due_at
        is_wanted = due_at.is_(None) | (due_at > at)
        is_overdue = (due_at >= since) & (due_at <= at)
        query = self._by_site(
            {
                "open": is_wanted,
                "overdue": is_overdue,
                "expiring": is_wanted & (due_at <= soon),
            },
            is_wanted,
        )
        rows = self._transaction.execute(query)
        counts_by_site = [(r.site, r.open, r.overdue, r.expiring, r.oldest) for r in rows]
        return [row for row in counts_by_site if any(row[1:4])]

    def _by_site(
        self, counts: Mapping[str, ColumnElement[bool]], asked: ColumnElement[bool]
    ) -> Select[Any]:
        oldest = func.min(case((asked, reviews.c.opened_at)))
        return (
            select(
                reviews.c.site,
                *(
                    func.sum(case((condition, 1), else_=0)).label(name)
                    for name, condition in counts.items()
                ),
                type_coerce(oldest, Instant).label("oldest"),
            )
            .where(reviews.c.rollout == self._rollout.number, reviews.c.state == OPEN)
            .group_by(reviews.c.site)
            .order_by(reviews.c.site)
        )

    def heard(self) -> dict[str, datetime]:
        """Return by site when its last case or sign of life came in."""
        last_received: dict[str, datetime] = {}
        for table in (cases, heartbeats):
            last_received_at = type_coerce(func.max(table.c.received_at), Instant).label("at")
            query = (
                select(table.c.site, last_received_at)
                .where(table.c.rollout == self._rollout.number)
                .group_by(table.c.site)
            )
            for row in self._transaction.execute(query):
                last_received[row.site] = max(row.at, last_received.get(row.site, row.at))
        return dict(sorted(last_received.items()))
