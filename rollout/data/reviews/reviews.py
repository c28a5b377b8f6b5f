"""Review tasks as a queue and as read-only lists, and choices for training on cases.

One reviewer at a time claims a task. A claim ends at the task's `claimed_until`; the task is then
free without any process. The reviewer's name stays until another reviewer claims it, so that a slow
reviewer may still answer.

A choice for training is to relabel, drop or keep. The lists have what reviewers decided, and open
adjudications.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Table,
    Text,
    and_,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    type_coerce,
    update,
)
from sqlalchemy.exc import IntegrityError

from rollout.data.database.bulk import insert_new_rows
from rollout.data.database.rollouts import Rollout, RolloutRepository, match_cases
from rollout.data.database.session import Transaction
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import select_figures_until
from rollout.data.tables.record_tables import decode_instant, encode_json
from rollout.data.tables.tables import (
    cases,
    cleanings,
    decisions,
    exposures,
    predictions,
    reviews,
    rollouts,
)
from rollout.engine.records.records import NAMED_BY_DECISION
from rollout.engine.records.reviews import (
    ADJUDICATE,
    BLIND,
    BLIND_KINDS,
    REVEALING_CONTENT,
    SEEDED,
    CleaningChoice,
    fold_name,
)

OPEN, DONE, WITHDRAWN = "open", "done", "withdrawn"
QUEUE_ORDER: Final = (
    reviews.c.due_at,
    reviews.c.opened_at,
    reviews.c.sampling_value,
    reviews.c.task_number,
)
"""The order in which tasks are claimed and shown, after those whose answer can affect an action."""
NEWEST_FIRST: Final = (reviews.c.closed_at.desc(), reviews.c.id.desc())
PREDICTION_WAIT: Final = timedelta(minutes=10)
"""How long a blind case waits for the predictions of versions in use: who predicts after a human
decided could have seen the answer, so the case would be missing."""
MAX_UNPREDICTED: Final = 20
"""A version that left so many last cases unpredicted delays no review."""
NO_VERSIONS: Final[Mapping[tuple[str, ...], Collection[str]]] = MappingProxyType({})
MAX_COUNTED: Final = 1_000
"""Maximum of counted cases: a page shows the number, and requests it often."""

SiteFilter = Collection[str] | None
"""Sites at which a reviewer may decide; None means all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestedDecision:
    """What is asked of one reviewer about a case, and until when."""

    case_id: int
    kind: str
    task_number: int
    site: str
    version: str | None = None
    opened_at: datetime
    due_at: datetime | None = None
    answer_by: datetime | None = None
    gold_answers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReviewTask(RequestedDecision):
    """A review task to open."""

    sampling_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredReviewTask(RequestedDecision):
    """A stored review task."""

    id: int
    state: str
    reviewer: str | None
    claimed_until: datetime | None
    gold_decision: Mapping[str, Any] | None

    def is_claimed_by(self, reviewer: str) -> bool:
        """Return whether the task is open and last claimed by `reviewer`."""
        return self.state == OPEN and self.reviewer == reviewer

    def is_free(self, at: datetime, claim_time: datetime) -> bool:
        """Return whether the task can be claimed at `at`, `claim_time` on the wall clock."""
        is_unclaimed = self.claimed_until is None or self.claimed_until <= claim_time
        return self.state == OPEN and is_unclaimed and self.is_wanted_at(at)

    def is_wanted_at(self, at: datetime) -> bool:
        """Return whether a decision is still needed at `at`."""
        return self.state == OPEN and (self.due_at is None or at < self.due_at)

    def is_urgent_at(self, at: datetime) -> bool:
        """Return whether a client still waits for the answer."""
        return self.answer_by is not None and at < self.answer_by


TASK_COLUMNS: Final = tuple(reviews.c[name] for name in StoredReviewTask.__dataclass_fields__)


class ReviewTaskStore(RolloutRepository):
    """The review tasks of one rollout."""

    def __init__(
        self,
        transaction: Transaction,
        rollout: Rollout,
        sites_by_version: Mapping[tuple[str, ...], Collection[str]] = NO_VERSIONS,
    ) -> None:
        """Prepare for reading; `sites_by_version` says where versions are in use, by their names.

        Blind cases are offered only once those have predicted, or after `PREDICTION_WAIT`.
        """
        super().__init__(transaction, rollout)
        self._sites_by_version = sites_by_version
        self._spellings: set[str] = set()

    def open_tasks(self, new_tasks: Iterable[NewReviewTask]) -> None:
        """Store new tasks; existing ones stay as they are."""
        insert_new_rows(
            self._transaction, reviews, [_build_row(self._rollout, each) for each in new_tasks]
        )

    def find(self, number: int, *, lock: bool = False) -> StoredReviewTask | None:
        """Return the task with this number, or None; `lock` blocks changes."""
        query = self._select_tasks(reviews.c.id == number)
        return self._transaction.find(query.with_for_update() if lock else query, build_task)

    def list_of_cases(self, case_ids: Collection[int]) -> Sequence[StoredReviewTask]:
        """Return all tasks of some cases, in order within each case."""
        return self._load_all(
            self._select_tasks(*self._match_cases(case_ids)).order_by(
                reviews.c.case_id, reviews.c.kind, reviews.c.task_number
            )
        )

    def list_claimed(
        self, reviewer: str, at: datetime, kinds: Collection[str], sites: SiteFilter
    ) -> list[StoredReviewTask]:
        """Return the tasks that a reviewer has claimed, in queue order."""
        query = self._select_tasks(
            reviews.c.reviewer == reviewer,
            reviews.c.state == OPEN,
            reviews.c.kind.in_(kinds),
            reviews.c.claimed_until > at,
            *match_sites(sites),
        )
        return self._load_all(query.order_by(*QUEUE_ORDER))

    def lock_reviewer(self, reviewer: str) -> None:
        """Block other claims of this reviewer until the transaction ends.

        Concurrent requests would otherwise claim twice as much: each skips the rows that the other
        locks. SQLite has one writer anyway.
        """
        if self._transaction.connection.dialect.name == "postgresql":
            lock_key = (self._rollout.number, func.hashtext(reviewer))
            self._transaction.execute(select(func.pg_advisory_xact_lock(*lock_key)))

    def claim(
        self,
        reviewer: str,
        at: datetime,
        kinds: Collection[str],
        sites: SiteFilter,
        until: datetime,
        claim_time: datetime | None = None,
        *,
        only_urgent: bool = False,
    ) -> StoredReviewTask | None:
        """Claim the next task for a reviewer until `until`, or return None.

        Tasks whose answer can still affect the action come first, by `answer_by`; then the others
        by due time. Concurrent calls get different tasks. `claim_time` is `at` on the clock of
        claims; None means the same clock.
        """
        available = self._select_tasks(
            *self._match_available(reviewer, at, kinds, sites, claim_time or at)
        )
        urgent = available.where(reviews.c.answer_by > at).order_by(reviews.c.answer_by)
        for query in (urgent,) if only_urgent else (urgent, available):
            task = self._lock_first(query.order_by(*QUEUE_ORDER))
            if task is not None and self._learn_spellings(reviewer, [task.case_id]):
                return self.claim(
                    reviewer, at, kinds, sites, until, claim_time, only_urgent=only_urgent
                )
            if task is not None:
                return self._claim_locked(task, reviewer, until)
        return None

    def release(self, task: StoredReviewTask) -> None:
        """Release a claim."""
        self._release(reviews.c.id == task.id, reviews.c.reviewer == task.reviewer)

    def release_all(self, reviewer: str, sites: SiteFilter) -> int:
        """Release all claims of a reviewer; return the number of tasks."""
        return self._release(reviews.c.reviewer == reviewer, *match_sites(sites))

    def release_revealed(self, reviewer: str) -> None:
        """Release the gold cases that figures may have revealed to their reviewer."""
        self._release(
            reviews.c.reviewer == reviewer,
            reviews.c.kind == SEEDED,
            self._match_seen_figures(reviewer),
        )

    def _release(self, *conditions: ColumnElement[bool], **values: Any) -> int:
        """Release open tasks and return their number; also set `values`."""
        return self._update(
            reviews.c.state == OPEN, *conditions, reviewer=None, claimed_until=None, **values
        )

    def close(
        self,
        task: StoredReviewTask,
        reviewer: str,
        *,
        at: datetime,
        gold_decision: Mapping[str, Any] | None = None,
    ) -> None:
        """Close a task with a decision; gold cases have a `gold_decision`."""
        self._update(
            reviews.c.id == task.id,
            state=DONE,
            reviewer=reviewer,
            claimed_until=None,
            closed_at=at,
            gold_decision=gold_decision,
        )

    def withdraw(self, case_ids: Collection[int], kinds: Collection[str], *, at: datetime) -> None:
        """Withdraw the open tasks of cases; decisions stay."""
        if case_ids:
            self._update(
                *self._match_cases(case_ids),
                reviews.c.kind.in_(kinds),
                reviews.c.state == OPEN,
                state=WITHDRAWN,
                closed_at=at,
            )

    def reopen(self, case_ids: Collection[int]) -> None:
        """Open the withdrawn tasks of cases again."""
        if case_ids:
            self._update(
                *self._match_cases(case_ids),
                reviews.c.state == WITHDRAWN,
                state=OPEN,
                closed_at=None,
            )

    def change_site(self, case_id: int, site: str) -> None:
        """Move a corrected case's open tasks and release them."""
        self._release(reviews.c.case_id == case_id, reviews.c.site != site, site=site)

    def count_available(
        self,
        reviewer: str,
        at: datetime,
        kinds: Collection[str],
        sites: SiteFilter,
        claim_time: datetime | None = None,
        *,
        due_until: datetime | None = None,
    ) -> int:
        """Return how many cases a reviewer could claim, at most `MAX_COUNTED`.

        With `due_until` only those of tasks that are due by then.
        """
        available = self._match_available(reviewer, at, kinds, sites, claim_time or at)
        due = () if due_until is None else (reviews.c.due_at <= due_until,)
        own_cases = select(reviews.c.case_id).where(reviews.c.rollout == self._rollout.number)
        case_query = own_cases.where(*available, *due).distinct().limit(MAX_COUNTED)
        case_ids = self._transaction.execute(case_query).scalars().all()
        if self._learn_spellings(reviewer, case_ids):
            return self.count_available(reviewer, at, kinds, sites, claim_time, due_until=due_until)
        return len(case_ids)

    def _learn_spellings(self, reviewer: str, case_ids: Collection[int]) -> bool:
        """Keep the other spellings under which the reviewer decided cases; return whether any did.

        Tasks of such cases are left out from then on: no database compares names as `fold_name`.
        """
        conditions = match_cases(self._transaction, self._rollout, decisions, case_ids)
        names = self._transaction.execute(select(decisions.c.reviewer).where(*conditions)).scalars()
        spellings = {name for name in names if fold_name(name) == fold_name(reviewer)}
        self._spellings |= spellings
        return bool(spellings)

    def list_overdue(
        self, *, since: datetime, until: datetime, sites: SiteFilter, limit: int
    ) -> Sequence[StoredReviewTask]:
        """Return open tasks due in [`since`, `until`), the first due first."""
        query = self._select_tasks(
            reviews.c.state == OPEN,
            reviews.c.due_at >= since,
            reviews.c.due_at < until,
            *match_sites(sites),
        )
        return self._load_all(query.order_by(reviews.c.due_at, reviews.c.id).limit(limit))

    def _select_tasks(self, *conditions: ColumnElement[bool]) -> Select[Any]:
        return select_tasks(self._rollout, *conditions)

    def _match_cases(self, case_ids: Collection[int]) -> tuple[ColumnElement[bool], ...]:
        return match_cases(self._transaction, self._rollout, reviews, case_ids)

    def _update(self, *conditions: ColumnElement[bool], **values: Any) -> int:
        own_rows = update(reviews).where(reviews.c.rollout == self._rollout.number, *conditions)
        return self._transaction.execute(own_rows.values(**values)).rowcount

    def _load_all(self, query: Select[Any]) -> list[StoredReviewTask]:
        return [build_task(row) for row in self._transaction.execute(query)]

    def _lock_first(self, query: Select[Any]) -> StoredReviewTask | None:
        locking_query = query.limit(1).with_for_update(skip_locked=True, of=reviews)
        return self._transaction.find(locking_query, build_task)

    def _claim_locked(
        self, task: StoredReviewTask, reviewer: str, until: datetime
    ) -> StoredReviewTask | None:
        """Claim a locked task; None if the reviewer has another one."""
        try:
            with self._transaction.connection.begin_nested():
                self._update(reviews.c.id == task.id, reviewer=reviewer, claimed_until=until)
        except IntegrityError:
            return None
        return self.find(task.id)

    def _match_available(
        self,
        reviewer: str,
        at: datetime,
        kinds: Collection[str],
        sites: SiteFilter,
        claim_time: datetime,
    ) -> tuple[ColumnElement[bool], ...]:
        """Return the conditions for a task that a reviewer may claim."""
        own_spellings = {name for name in self._spellings if fold_name(name) == fold_name(reviewer)}
        return (
            reviews.c.state == OPEN,
            reviews.c.kind.in_(kinds),
            or_(reviews.c.claimed_until.is_(None), reviews.c.claimed_until <= claim_time),
            or_(reviews.c.due_at.is_(None), reviews.c.due_at > at),
            *match_sites(sites),
            _match_case(cases),
            ~_match_case(decisions, decisions.c.reviewer.in_(sorted({reviewer, *own_spellings}))),
            ~_has_other_task(reviewer),
            or_(reviews.c.kind.not_in(BLIND_KINDS), ~_has_seen_content(reviewer)),
            or_(reviews.c.kind != SEEDED, ~self._match_seen_figures(reviewer)),
            self._match_predicted(at) if BLIND in kinds else true(),
        )

    def _match_predicted(self, at: datetime) -> ColumnElement[bool]:
        """Return the condition for tasks whose answer no version in use could still see.

        Those that a client waits for are offered at once, and versions that left their last cases
        unpredicted delay nothing.
        """
        awaited = [
            and_(
                reviews.c.site.in_(sorted(sites)),
                ~_match_case(predictions, predictions.c.version.in_(names)),
                _match_drawn(names, reviews),
            )
            for names, sites in self._sites_by_version.items()
            if self._does_predict(names, sites, at - PREDICTION_WAIT)
        ]
        is_offered = or_(
            reviews.c.kind != BLIND,
            reviews.c.answer_by > at,
            reviews.c.opened_at <= at - PREDICTION_WAIT,
        )
        return or_(is_offered, ~or_(*awaited)) if awaited else true()

    def _does_predict(self, names: Sequence[str], sites: Collection[str], until: datetime) -> bool:
        """Return whether a version predicted one of its last cases, or had too few."""
        of_rollout = cases.c.rollout == self._rollout.number
        last_cases = (
            select(cases.c.case_id)
            .where(of_rollout, cases.c.site.in_(sorted(sites)), cases.c.received_at <= until)
            .where(_match_drawn(names, cases))
            .order_by(cases.c.received_at.desc())
            .limit(MAX_UNPREDICTED)
        ).subquery()
        is_predicted = exists().where(
            predictions.c.rollout == self._rollout.number,
            predictions.c.case_id == last_cases.c.case_id,
            predictions.c.version.in_(names),
        )
        predicted = [
            *self._transaction.execute(select(is_predicted).select_from(last_cases)).scalars()
        ]
        return len(predicted) < MAX_UNPREDICTED or any(predicted)

    def _match_seen_figures(self, reviewer: str) -> ColumnElement[bool]:
        """Return the condition for cases in figures that a reviewer saw."""
        return _match_case(
            cases, cases.c.occurred_at < select_figures_until(self._rollout, reviewer)
        )


def select_tasks(rollout: Rollout, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Return the query for tasks of a rollout, with the columns that `build_task` reads."""
    return select(*TASK_COLUMNS).where(reviews.c.rollout == rollout.number, *conditions)


def match_sites(sites: SiteFilter) -> tuple[ColumnElement[bool], ...]:
    """Return the condition for tasks at some sites; () for all."""
    return () if sites is None else (reviews.c.site.in_(sorted(sites)),)


def _match_case(table: Any, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Return the condition for a table having rows of the task's case."""
    same_case = and_(table.c.rollout == reviews.c.rollout, table.c.case_id == reviews.c.case_id)
    return exists().where(same_case, *conditions).correlate(reviews)


def _match_drawn(names: Sequence[str], table: Table) -> ColumnElement[bool]:
    """Return the condition for cases on which a version runs: all, or those of its sample.

    What the case drew when it was received first counts, as `pick_first_draws` says. Drawn by one
    of its names is drawn.
    """
    first = cases.alias("first")
    is_replaced = and_(first.c.revision <= 0, first.c.revision != NAMED_BY_DECISION)
    draws = type_coerce(first.c.draws, Text)
    is_drawn, is_left_out = (_match_entry(draws, names, is_drawn=value) for value in (True, False))
    first_draws = (
        select(or_(draws.is_(None), is_drawn, ~is_left_out))
        .where(first.c.rollout == table.c.rollout, first.c.case_id == table.c.case_id)
        .order_by(is_replaced, first.c.received_at, first.c.revision)
        .limit(1)
    )
    return first_draws.correlate(table).scalar_subquery()


def _match_entry(
    draws: ColumnElement[str], names: Sequence[str], *, is_drawn: bool
) -> ColumnElement[bool]:
    """Return the condition for the JSON of draws having one of these entries.

    No text in a key can look like one: there, quotation marks follow a backslash. On SQLite LIKE
    would ignore the case of letters.
    """
    entries = (encode_json({name: is_drawn})[1:-1] for name in names)
    texts = [f"{mark}{entry}" for entry in entries for mark in "{,"]
    return or_(*(func.replace(draws, text, "") != draws for text in texts))


def _has_other_task(reviewer: str) -> ColumnElement[bool]:
    """Return the condition for another task of the case with this reviewer."""
    other_task = reviews.alias("other")
    return _match_case(
        other_task, other_task.c.reviewer == reviewer, other_task.c.id != reviews.c.id
    )


def _has_seen_content(reviewer: str) -> ColumnElement[bool]:
    """Return the condition for exposure to content that blind tasks forbid."""
    return _match_case(
        exposures,
        exposures.c.reviewer == reviewer,
        exposures.c.content.in_(sorted(REVEALING_CONTENT)),
    )


def _build_row(rollout: Rollout, new_task: NewReviewTask) -> dict[str, Any]:
    values = {name: getattr(new_task, name) for name in NewReviewTask.__dataclass_fields__}
    return {"rollout": rollout.number, "state": OPEN, **values}


def build_task(row: Row[Any]) -> StoredReviewTask:
    """Return the task of a row of `select_tasks`."""
    return StoredReviewTask(**{column.name: getattr(row, column.name) for column in TASK_COLUMNS})


CHOICE_COLUMNS = ("lever", "choice", "label", "reason", "by", "at", "version", "report")


@dataclass(frozen=True, slots=True)
class NumberedChoice:
    """A choice with its number; later choices have higher numbers."""

    number: int
    choice: CleaningChoice


class CleaningStore(RolloutRepository):
    """The choices of one rollout; all of them stay."""

    def lock(self) -> None:
        """Block other choices in this rollout until the transaction ends."""
        lock_query = select(rollouts.c.id).where(rollouts.c.id == self._rollout.number)
        self._transaction.execute(lock_query.with_for_update())

    def add(self, choices: Iterable[tuple[int, CleaningChoice]]) -> None:
        """Store choices in order, each with the number of its case."""
        for case_id, choice in choices:
            values = {name: getattr(choice, name) for name in CHOICE_COLUMNS}
            own_case = {"rollout": self._rollout.number, "case_id": case_id}
            self._transaction.execute(insert(cleanings).values({**own_case, **values}))

    def list_for_cases(self, case_ids: Collection[int]) -> Sequence[CleaningChoice]:
        """Return all choices on some cases, oldest first."""
        conditions = match_cases(self._transaction, self._rollout, cleanings, case_ids)
        choices = self._load_choices(select(cleanings).where(*conditions).order_by(cleanings.c.id))
        return [numbered.choice for numbered in choices]

    def list_page(self, *, before: int | None = None, limit: int = 100) -> Sequence[NumberedChoice]:
        """Return choices before a number, newest first."""
        is_own = cleanings.c.rollout == self._rollout.number
        query = select(cleanings).where(is_own).order_by(cleanings.c.id.desc())
        if before is not None:
            query = query.where(cleanings.c.id < before)
        return self._load_choices(query.limit(limit))

    def _load_choices(self, query: Select[Any]) -> list[NumberedChoice]:
        rows = self._transaction.execute(query).all()
        keys = ExternalKeys(self._transaction, self._rollout).find_keys(
            {row.case_id for row in rows}
        )
        return [
            NumberedChoice(row.id, _build_choice(row, keys)) for row in rows if row.case_id in keys
        ]


def _build_choice(row: Row[Any], keys: Mapping[int, str]) -> CleaningChoice:
    return CleaningChoice(
        key=keys[row.case_id], **{name: getattr(row, name) for name in CHOICE_COLUMNS}
    )


class ReviewTaskLists(RolloutRepository):
    """The review tasks of one rollout as read-only lists."""

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
        closed = (
            select(reviews.c.id, reviews.c.case_id, reviews.c.gold_decision, reviews.c.closed_at)
            .where(
                reviews.c.rollout == self._rollout.number,
                *_match_done(reviewer),
                reviews.c.closed_at >= since,
            )
            .order_by(*NEWEST_FIRST)
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
        return self._load_closed(*_match_done(reviewer), order=NEWEST_FIRST, limit=limit)

    def find_decided(self, reviewer: str, number: int) -> tuple[StoredReviewTask, datetime] | None:
        """Return a reviewer's decided task by number, or None."""
        is_own = (*_match_done(reviewer), reviews.c.id == number)
        return next(iter(self._load_closed(*is_own, order=(), limit=1)), None)

    def list_adjudications(self, sites: SiteFilter, limit: int) -> Sequence[StoredReviewTask]:
        """Return open adjudications at sites (None: all), oldest first."""
        query = select_tasks(
            self._rollout,
            reviews.c.kind == ADJUDICATE,
            reviews.c.state == OPEN,
            *match_sites(sites),
        )
        query = query.order_by(reviews.c.opened_at, reviews.c.id).limit(limit)
        return [build_task(row) for row in self._transaction.execute(query)]

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
