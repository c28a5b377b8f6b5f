"""The queue of reviews: seats at cases, each given to one person at a time and never twice.

A claim is a seat's `claimed_until`: past it the seat is free again, without a process that frees
it. The name stays until somebody else takes the seat, so that who was slow may still answer.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Select, and_, exists, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from rollout.core.records.reviews import ADJUDICATE, SEEDED, TELLING, UNSEEN
from rollout.store.database import value_lists
from rollout.store.database.bulk import inserting
from rollout.store.database.rollouts import Rollout
from rollout.store.database.session import Transaction
from rollout.store.records.exposures import told_up_to
from rollout.store.tables.tables import cases, decisions, exposures, reviews

OPEN, DONE, WITHDRAWN = "open", "done", "withdrawn"
ORDER: Final = (
    reviews.c.due_at,
    reviews.c.opened_at,
    reviews.c.sampling_value,
    reviews.c.task_number,
)
MOST_COUNTED: Final = 1_000
"""Cases that wait are counted up to so many: the number is for a page, and asked for often."""

Sites = Collection[str] | None
"""Where somebody may judge; None is everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReview:
    """A seat that is opened."""

    case_id: int
    kind: str
    seat: int
    site: str
    opened_at: datetime
    turn: float
    due_at: datetime | None = None
    answer_by: datetime | None = None
    version: str | None = None
    known: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A seat as it stands."""

    id: int
    case_id: int
    kind: str
    seat: int
    site: str
    version: str | None
    opened_at: datetime
    due_at: datetime | None
    answer_by: datetime | None
    state: str
    reviewer: str | None
    claimed_until: datetime | None
    known: Mapping[str, str] | None
    said: Mapping[str, Any] | None

    def held(self, reviewer: str) -> bool:
        """Say whether the seat is open and nobody has taken it from `reviewer`."""
        return self.state == OPEN and self.reviewer == reviewer

    def free(self, at: datetime) -> bool:
        """Say whether it could be given to somebody at `at`."""
        is_unclaimed = self.claimed_until is None or self.claimed_until <= at
        return self.state == OPEN and is_unclaimed and self.asked(at)

    def asked(self, at: datetime) -> bool:
        """Say whether a verdict is still asked for at `at`."""
        return self.state == OPEN and (self.due_at is None or at < self.due_at)


COLUMN_OF: Final = {
    "seat": "task_number",
    "turn": "sampling_value",
    "known": "gold_answers",
    "said": "gold_decision",
}
"""The columns that have other names than the fields."""
FIELDS: Final = tuple(
    reviews.c[COLUMN_OF.get(name, name)].label(name) for name in Review.__dataclass_fields__
)


class Reviews:
    """The reviews of one rollout."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def open(self, new: Iterable[NewReview]) -> None:
        """Open seats; one that is there already stays as it is."""
        rows = [_row(self._rollout, new_task) for new_task in new]
        if rows:
            statement = inserting(self._transaction.engine, reviews).on_conflict_do_nothing()
            self._transaction.execute(statement, rows)

    def find(self, number: int, *, hold: bool = False) -> Review | None:
        """Return a review by its number; `hold` lets nobody change it meanwhile."""
        query = select(*FIELDS).where(*self._own(), reviews.c.id == number)
        row = self._transaction.execute(query.with_for_update() if hold else query).one_or_none()
        return None if row is None else _review(row)

    def of_cases(self, case_ids: Collection[int]) -> Sequence[Review]:
        """Return all seats of some cases, those of a case in their order."""
        condition = reviews.c.case_id.in_(value_lists.numbers(self._transaction, case_ids))
        query = select(*FIELDS).where(*self._own(), condition)
        return self._all(query.order_by(reviews.c.case_id, reviews.c.kind, reviews.c.task_number))

    def held(
        self, reviewer: str, at: datetime, kinds: Collection[str], sites: Sites
    ) -> list[Review]:
        """Return the open seats that somebody has at `at`, in the order of the queue."""
        conditions = (
            reviews.c.reviewer == reviewer,
            reviews.c.state == OPEN,
            reviews.c.kind.in_(kinds),
            reviews.c.claimed_until > at,
        )
        query = select(*FIELDS).where(*self._own(), *conditions, *_at_sites(sites))
        return self._all(query.order_by(*ORDER))

    def take_turns(self, reviewer: str) -> None:
        """Let nobody else claim in the same name until the transaction ends.

        Who asks twice at once would else hold twice as much: each would skip what the other locks.
        SQLite lets one write at a time anyway.
        """
        if self._transaction.connection.dialect.name == "postgresql":
            lock_key = (self._rollout.number, func.hashtext(reviewer))
            self._transaction.execute(select(func.pg_advisory_xact_lock(*lock_key)))

    def claim(
        self, reviewer: str, at: datetime, kinds: Collection[str], sites: Sites, until: datetime
    ) -> Review | None:
        """Give somebody the next seat until an instant, None where there is none for them.

        First those whose answer is still of use to whoever acts, the most pressing first; then
        by when they are due. Of several who ask at once each gets another seat.
        """
        urgent_condition = (reviews.c.answer_by > at,)
        available = self._free_to(reviewer, at, kinds, sites)
        for query in (
            select(*FIELDS)
            .where(*available, *urgent_condition)
            .order_by(reviews.c.answer_by, *ORDER),
            select(*FIELDS).where(*available).order_by(*ORDER),
        ):
            task = self._first(query)
            if task is not None:
                return self._take(task, reviewer, until)
        return None

    def release(self, review: Review) -> None:
        """Give a seat back."""
        statement = update(reviews).where(*self._own(), reviews.c.id == review.id)
        open_statement = statement.where(
            reviews.c.state == OPEN, reviews.c.reviewer == review.reviewer
        )
        self._transaction.execute(open_statement.values(reviewer=None, claimed_until=None))

    def release_all(self, reviewer: str, sites: Sites) -> int:
        """Give back what somebody holds who does not come, and return how many seats that is."""
        statement = update(reviews).where(
            *self._own(), reviews.c.reviewer == reviewer, reviews.c.state == OPEN, *_at_sites(sites)
        )
        return self._transaction.execute(
            statement.values(reviewer=None, claimed_until=None)
        ).rowcount

    def close(
        self,
        review: Review,
        reviewer: str,
        *,
        at: datetime,
        said: Mapping[str, Any] | None = None,
    ) -> None:
        """Note that somebody judged; `said` is kept of seeded cases alone."""
        statement = update(reviews).where(*self._own(), reviews.c.id == review.id)
        values = {"state": DONE, "reviewer": reviewer, "closed_at": at, "gold_decision": said}
        self._transaction.execute(statement.values(**values, claimed_until=None))

    def withdraw(self, case_ids: Collection[int], kinds: Collection[str], *, at: datetime) -> None:
        """Ask nobody any more about cases; verdicts that are in stay."""
        if not case_ids:
            return
        statement = update(reviews).where(
            *self._own(),
            reviews.c.case_id.in_(value_lists.numbers(self._transaction, case_ids)),
            reviews.c.kind.in_(kinds),
            reviews.c.state == OPEN,
        )
        self._transaction.execute(statement.values(state=WITHDRAWN, closed_at=at))

    def move(self, case_id: int, site: str) -> None:
        """Note that a case was corrected: it is at another site, and so others' to judge."""
        statement = update(reviews).where(
            *self._own(),
            reviews.c.case_id == case_id,
            reviews.c.state == OPEN,
            reviews.c.site != site,
        )
        self._transaction.execute(statement.values(site=site, reviewer=None, claimed_until=None))

    def waiting(self, reviewer: str, at: datetime, kinds: Collection[str], sites: Sites) -> int:
        """Return how many cases could be given to somebody, counted up to `MOST_COUNTED`."""
        available = self._free_to(reviewer, at, kinds, sites)
        case_query = select(reviews.c.case_id).where(*available).distinct().limit(MOST_COUNTED)
        query = select(func.count()).select_from(case_query.subquery())
        return int(self._transaction.execute(query).scalar_one())

    def overdue(
        self, *, since: datetime, until: datetime, sites: Sites, limit: int
    ) -> Sequence[Review]:
        """Return seats without a verdict that run out between two instants, the first first."""
        query = select(*FIELDS).where(
            *self._own(),
            reviews.c.state == OPEN,
            reviews.c.due_at >= since,
            reviews.c.due_at < until,
            *_at_sites(sites),
        )
        return self._all(query.order_by(*ORDER).limit(limit))

    def seeded(self) -> Sequence[Review]:
        """Return the known cases that were judged, by whom and how."""
        query = select(*FIELDS).where(
            *self._own(), reviews.c.kind == SEEDED, reviews.c.state == DONE
        )
        return self._all(query.order_by(reviews.c.id))

    def _own(self) -> tuple[ColumnElement[bool], ...]:
        return (reviews.c.rollout == self._rollout.number,)

    def _all(self, query: Select[Any]) -> list[Review]:
        return [_review(row) for row in self._transaction.execute(query)]

    def _first(self, query: Select[Any]) -> Review | None:
        locking_query = query.limit(1).with_for_update(skip_locked=True, of=reviews)
        row = self._transaction.execute(locking_query).one_or_none()
        return None if row is None else _review(row)

    def _take(self, found: Review, reviewer: str, until: datetime) -> Review | None:
        """Take a seat that is locked; None where the same person took another of the case."""
        statement = update(reviews).where(*self._own(), reviews.c.id == found.id)
        try:
            with self._transaction.connection.begin_nested():
                self._transaction.execute(statement.values(reviewer=reviewer, claimed_until=until))
        except IntegrityError:
            return None
        return self.find(found.id)

    def _free_to(
        self, reviewer: str, at: datetime, kinds: Collection[str], sites: Sites
    ) -> tuple[ColumnElement[bool], ...]:
        """Return what makes a seat one that could be given to somebody."""
        return (
            *self._own(),
            reviews.c.state == OPEN,
            reviews.c.kind.in_(kinds),
            or_(reviews.c.claimed_until.is_(None), reviews.c.claimed_until <= at),
            or_(reviews.c.due_at.is_(None), reviews.c.due_at > at),
            *_at_sites(sites),
            _of_case(cases),
            ~_of_case(decisions, decisions.c.reviewer == reviewer),
            ~_sits_elsewhere(reviewer),
            or_(reviews.c.kind.not_in(UNSEEN), ~_was_told(reviewer)),
            or_(reviews.c.kind != SEEDED, ~self._in_figures(reviewer)),
        )

    def _in_figures(self, reviewer: str) -> ColumnElement[bool]:
        """Say that figures which somebody read may tell of the case: a known one was counted."""
        figures_until = told_up_to(self._rollout, reviewer)
        return _of_case(cases, cases.c.occurred_at < figures_until)


def _at_sites(sites: Sites) -> tuple[ColumnElement[bool], ...]:
    return () if sites is None else (reviews.c.site.in_(sorted(sites)),)


def _of_case(table: Any, *further: ColumnElement[bool]) -> ColumnElement[bool]:
    """Say that a table has rows of the review's case."""
    same_case = and_(table.c.rollout == reviews.c.rollout, table.c.case_id == reviews.c.case_id)
    return exists().where(same_case, *further).correlate(reviews)


def _sits_elsewhere(reviewer: str) -> ColumnElement[bool]:
    """Say that somebody has, or had, another seat at the same case."""
    other_task = reviews.alias("other")
    return _of_case(other_task, other_task.c.reviewer == reviewer, other_task.c.id != reviews.c.id)


def _was_told(reviewer: str) -> ColumnElement[bool]:
    """Say that somebody was shown what would have to be unseen."""
    return _of_case(
        exposures, exposures.c.reviewer == reviewer, exposures.c.content.in_(sorted(TELLING))
    )


def _row(rollout: Rollout, new: NewReview) -> dict[str, Any]:
    fields = NewReview.__dataclass_fields__
    values = {COLUMN_OF.get(name, name): getattr(new, name) for name in fields}
    return {"rollout": rollout.number, "state": OPEN, **values}


def _review(row: Row[Any]) -> Review:
    return Review(**row._asdict())


class SeatLists:
    """The seats of one rollout, as lists for people; nothing is changed."""

    def __init__(self, transaction: Transaction, rollout: Rollout) -> None:
        self._transaction = transaction
        self._rollout = rollout

    def judged(self, reviewer: str, since: datetime) -> int:
        """Return how many cases somebody judged from an instant on, known ones among them."""
        query = select(func.count()).where(*self._done(reviewer), reviews.c.closed_at >= since)
        return int(self._transaction.execute(query).scalar_one())

    def last(self, reviewer: str, limit: int) -> Sequence[tuple[Review, datetime]]:
        """Return what somebody judged last and when, the newest first."""
        newest_first = (reviews.c.closed_at.desc(), reviews.c.id.desc())
        return self._closed(*self._done(reviewer), order=newest_first, limit=limit)

    def one(self, reviewer: str, number: int) -> tuple[Review, datetime] | None:
        """Return what somebody judged by its number, None where they did not."""
        conditions = (*self._done(reviewer), reviews.c.id == number)
        return next(iter(self._closed(*conditions, order=(), limit=1)), None)

    def to_settle(self, sites: Collection[str] | None, limit: int) -> Sequence[Review]:
        """Return the open adjudications at sites (None: everywhere), the oldest first."""
        site_condition = () if sites is None else (reviews.c.site.in_(sorted(sites)),)
        query = select(*FIELDS).where(
            self._own(), reviews.c.kind == ADJUDICATE, reviews.c.state == OPEN, *site_condition
        )
        rows = self._transaction.execute(
            query.order_by(reviews.c.opened_at, reviews.c.id).limit(limit)
        )
        return [Review(**row._asdict()) for row in rows]

    def _closed(
        self, *own: ColumnElement[bool], order: Sequence[Any], limit: int
    ) -> Sequence[tuple[Review, datetime]]:
        query = select(*FIELDS, reviews.c.closed_at).where(*own).order_by(*order).limit(limit)
        rows = [row._asdict() for row in self._transaction.execute(query)]
        return [(Review(**{name: row[name] for name in _NAMES}), row["closed_at"]) for row in rows]

    def _own(self) -> ColumnElement[bool]:
        return reviews.c.rollout == self._rollout.number

    def _done(self, reviewer: str) -> tuple[ColumnElement[bool], ...]:
        return (self._own(), reviews.c.reviewer == reviewer, reviews.c.state == DONE)


_NAMES = tuple(Review.__dataclass_fields__)
