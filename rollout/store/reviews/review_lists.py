"""Read-only lists of review tasks: what reviewers decided, and open adjudications."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, select

from rollout.core.records.reviews import ADJUDICATE
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.reviews.reviews import (
    DONE,
    OPEN,
    SiteFilter,
    StoredReviewTask,
    build_task,
    match_sites,
    select_tasks,
)
from rollout.store.tables.columns import decode_instant
from rollout.store.tables.tables import decisions, reviews


class ReviewTaskLists:
    """The review tasks of one rollout as read-only lists."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def count_decided(self, reviewer: str, since: datetime) -> int:
        """Return how many cases a reviewer decided since a time."""
        query = select(func.count()).where(
            reviews.c.rollout == self._rollout.number,
            *_match_done(reviewer),
            reviews.c.closed_at >= since,
        )
        return int(self._transaction.execute(query).scalar_one())

    def list_submissions(
        self, reviewer: str, since: datetime, limit: int
    ) -> Sequence[tuple[datetime | None, datetime, bool]]:
        """Return start, end and unsureness of a reviewer's last decisions.

        Decisions of gold cases are among them; of several revisions the newest counts.
        """
        newest_first = (reviews.c.closed_at.desc(), reviews.c.id.desc())
        closed = (
            select(reviews.c.id, reviews.c.case_id, reviews.c.gold_decision, reviews.c.closed_at)
            .where(
                reviews.c.rollout == self._rollout.number,
                *_match_done(reviewer),
                reviews.c.closed_at >= since,
            )
            .order_by(*newest_first)
            .limit(limit)
            .subquery()
        )
        own_decision = and_(
            decisions.c.rollout == self._rollout.number,
            decisions.c.case_id == closed.c.case_id,
            decisions.c.reviewer == reviewer,
        )
        query = (
            select(closed.c.id, closed.c.gold_decision, closed.c.closed_at)
            .add_columns(decisions.c.started_at, decisions.c.submitted_at, decisions.c.unsure)
            .select_from(closed.outerjoin(decisions, own_decision))
            .order_by(closed.c.id, decisions.c.revision)
        )
        newest = {row.id: row for row in self._transaction.execute(query)}
        return [_read_submission(row) for row in newest.values()]

    def list_last_decided(
        self, reviewer: str, limit: int
    ) -> Sequence[tuple[StoredReviewTask, datetime]]:
        """Return a reviewer's last decisions with their times, newest first."""
        newest_first = (reviews.c.closed_at.desc(), reviews.c.id.desc())
        return self._load_closed(*_match_done(reviewer), order=newest_first, limit=limit)

    def find_decided(self, reviewer: str, number: int) -> tuple[StoredReviewTask, datetime] | None:
        """Return a reviewer's decided task by number, or None."""
        conditions = (*_match_done(reviewer), reviews.c.id == number)
        return next(iter(self._load_closed(*conditions, order=(), limit=1)), None)

    def list_adjudications(self, sites: SiteFilter, limit: int) -> Sequence[StoredReviewTask]:
        """Return open adjudications at sites (None: all), oldest first."""
        query = select_tasks(
            self._rollout,
            reviews.c.kind == ADJUDICATE,
            reviews.c.state == OPEN,
            *match_sites(sites),
        )
        rows = self._transaction.execute(
            query.order_by(reviews.c.opened_at, reviews.c.id).limit(limit)
        )
        return [build_task(row) for row in rows]

    def _load_closed(
        self, *conditions: ColumnElement[bool], order: Sequence[Any], limit: int
    ) -> Sequence[tuple[StoredReviewTask, datetime]]:
        query = select_tasks(self._rollout, *conditions).add_columns(reviews.c.closed_at)
        rows = self._transaction.execute(query.order_by(*order).limit(limit))
        return [(build_task(row), row.closed_at) for row in rows]


def _read_submission(row: Row[Any]) -> tuple[datetime | None, datetime, bool]:
    gold = row.gold_decision
    if gold is None:
        return row.started_at, row.submitted_at or row.closed_at, bool(row.unsure)
    started_at = None if gold["started_at"] is None else decode_instant(gold["started_at"])
    is_unsure = gold["unsure"] or None in gold["answers"].values()
    return started_at, decode_instant(gold["submitted_at"]), is_unsure


def _match_done(reviewer: str) -> tuple[ColumnElement[bool], ...]:
    return reviews.c.reviewer == reviewer, reviews.c.state == DONE
