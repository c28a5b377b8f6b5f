"""What a report needs of a period besides records: cases, actions, open reviews, last arrivals."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import polars as pl
from sqlalchemy import ColumnElement, Select, case, func, select, type_coerce

from rollout.data.database.frames import load_frame
from rollout.data.database.rollouts import RolloutRepository, match_cases
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.records import UNPLACED_SPAN, RejectedRecords
from rollout.data.reviews.reviews import OPEN
from rollout.data.tables.columns import InstantType
from rollout.data.tables.tables import actions, cases, decisions, heartbeats, reviews
from rollout.engine.evidence.frames import INSTANT
from rollout.engine.records.reviews import BLIND_KINDS, SEEDED
from rollout.kernel.policy.fresh_evidence import UnplacedDecisions

ACTION_COLUMNS = ("lever", "action", "by", "version", "at", "authorization", "permit_kind")


@dataclass(frozen=True, slots=True)
class UnplacedHistory:
    """Decisions that belonged to no cell, and the others, as ticks of a period counted them.

    Each has the sorted instants at which a case began and ceased to count.
    """

    unplaced: tuple[pl.Series, pl.Series]
    placed: tuple[pl.Series, pl.Series]

    def count_at(self, at: datetime) -> UnplacedDecisions:
        """Return what `RejectedRecords.count_unplaced_decisions` returned at an instant."""
        unplaced, placed = (
            int(starts.search_sorted(at, side="right") - ends.search_sorted(at, side="right"))
            for starts, ends in (self.unplaced, self.placed)
        )
        return UnplacedDecisions(unplaced, unplaced + placed)


def _list_spans(frame: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Return when cases begin and cease to count: for a week, until placed or received again."""
    week = pl.col("received_at") + UNPLACED_SPAN + timedelta.resolution  # its last instant counts
    again = pl.col("received_at").shift(-1).over("case_id", order_by="received_at")
    placed = [name for name in frame.columns if name == "placed_at"]
    spans = frame.with_columns(ended_at=pl.min_horizontal(week, again, *placed))
    spans = spans.filter(pl.col("ended_at") > pl.col("received_at"))
    return spans["received_at"].sort(), spans["ended_at"].sort()


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

    def load_unplaced(self, since: datetime, until: datetime) -> UnplacedHistory | None:
        """Return the decisions of a period that belonged to no cell; None without any."""
        since -= UNPLACED_SPAN
        rejected = RejectedRecords(self._transaction, self._rollout).list_unplaced(since, until)
        if not rejected:
            return None
        ids = ExternalKeys(self._transaction, self._rollout).find_ids({key for key, _ in rejected})
        placed_query = (
            select(decisions.c.case_id, func.min(decisions.c.received_at).label("at"))
            .where(*match_cases(self._transaction, self._rollout, decisions, set(ids.values())))
            .group_by(decisions.c.case_id)
        )
        placed_at = {row.case_id: row.at for row in self._transaction.execute(placed_query)}
        rows = [(key, at, placed_at.get(ids.get(key, 0))) for key, at in rejected]
        schema = {"case_id": pl.String(), "received_at": INSTANT, "placed_at": INSTANT}
        query = select(decisions.c.case_id, decisions.c.received_at).where(
            decisions.c.rollout == self._rollout.number,
            decisions.c.received_at.between(since, until),
        )
        return UnplacedHistory(
            unplaced=_list_spans(pl.DataFrame(rows, schema=schema, orient="row")),
            placed=_list_spans(load_frame(self._transaction, query)),
        )

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
