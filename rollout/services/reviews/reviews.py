"""A reviewer's use cases: claim and release.

Exposures are recorded in the transaction that returns the case. Before the decision is stored, a
reviewer gets nothing derived from predictions, except in assisted tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rollout import faults
from rollout.core.records.reviews import ADJUDICATE
from rollout.core.scope.permissions import Caller, Permission, require_permission
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.records.review_tasks import (
    open_reviews,
    request_adjudication,
    seed_gold_case,
    withdraw_answered_reviews,
)
from rollout.services.reviews.decisions import (
    DecisionDraft,
    StoredDecision,
    build_unknown_review_error,
    check_is_user,
    submit_decision,
    was_assigned,
)
from rollout.services.reviews.exposure import (
    find_hidden_cases,
    record_exposure,
)
from rollout.services.reviews.review_queue import (
    ALL_REVIEW_KINDS,
    REVIEW_KINDS_BY_QUEUE,
    ClaimedTask,
    ReviewerTasks,
    ReviewQueue,
    count_waiting,
    expose_tasks,
    find_permitted_sites,
    find_queue,
    load_reviewer_tasks,
)
from rollout.store.database.session import Database
from rollout.store.records.newest_records import NewestRecords
from rollout.store.reviews.reviews import ReviewTaskStore

__all__ = [
    "DecisionDraft",
    "OverdueTask",
    "StoredDecision",
    "claim_page_task",
    "claim_reviews",
    "find_hidden_cases",
    "load_overdue_reviews",
    "load_own_reviews",
    "open_reviews",
    "record_exposure",
    "release_own_claims",
    "release_review",
    "release_reviewer_claims",
    "request_adjudication",
    "seed_gold_case",
    "submit_decision",
    "withdraw_answered_reviews",
]

CLAIM_DURATION = timedelta(minutes=10)
"""How long a claim reserves a case."""

MAX_CLAIMED_CASES = 5
"""Maximum claims per reviewer."""

PAGE_KINDS: Final = (*REVIEW_KINDS_BY_QUEUE["blind"], *REVIEW_KINDS_BY_QUEUE["assisted"])
"""The kinds of a review page, and those that are claimed where no queue is named."""


@dataclass(frozen=True, slots=True)
class OverdueTask:
    """A late or missing review task, as operators see it."""

    review: int
    case: str
    site: str
    kind: ReviewQueue
    due_at: datetime
    reviewer: str | None


@dataclass(frozen=True, slots=True)
class PageTask:
    """The claimed case of a review page.

    Attributes:
        task: None if there is none to review.
        to_go: pending cases, with the claimed ones.
        to_settle: pending adjudications.
    """

    task: ClaimedTask | None
    to_go: int
    to_settle: int


def claim_reviews(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    *,
    kind: ReviewQueue | None = None,
    target_count: int = 1,
    claim_time: datetime | None = None,
) -> ReviewerTasks:
    """Claim cases up to `target_count`, and return all claimed ones.

    Repeating it is safe: cases claimed before are included in the count.

    Args:
        caller: a user with the permission to review.
        kind: the queue; None for blind and assisted tasks by due time, then adjudications.
        target_count: at most `MAX_CLAIMED_CASES`.
        claim_time: `at` on the clock of claims; None means the same clock.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
        UserRequiredError: the caller is a service account.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    check_is_user(caller)
    queues = (
        (PAGE_KINDS, REVIEW_KINDS_BY_QUEUE["adjudicate"])
        if kind is None
        else (REVIEW_KINDS_BY_QUEUE[kind],)
    )
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    claim_time = claim_time or at
    until = claim_time + CLAIM_DURATION
    with database.begin_write() as transaction:
        review_store = ReviewTaskStore(transaction, state.rollout)
        review_store.lock_reviewer(caller.name)
        missing_count = min(target_count, MAX_CLAIMED_CASES) - sum(
            len(review_store.list_claimed(caller.name, claim_time, kinds, sites))
            for kinds in queues
        )
        for kinds in queues:
            while missing_count > 0 and review_store.claim(
                caller.name, at, kinds, sites, until, claim_time
            ):
                missing_count -= 1
        faults.reach_point("review.claimed")
        return load_reviewer_tasks(transaction, state, caller, at, claim_time)


def claim_page_task(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    *,
    claim_time: datetime | None = None,
) -> PageTask:
    """Return the case of a review page, claimed if need be.

    A case that somebody waits for comes first. `claim_time` is `at` on the clock of claims; None
    means the same clock.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
        UserRequiredError: the caller is a service account.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    check_is_user(caller)
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    claim_time = claim_time or at
    until = claim_time + CLAIM_DURATION
    with database.begin_write() as transaction:
        review_store = ReviewTaskStore(transaction, state.rollout)
        review_store.lock_reviewer(caller.name)
        review_store.release_revealed(caller.name)
        claimed = review_store.list_claimed(caller.name, claim_time, PAGE_KINDS, sites)
        urgent = [task for task in claimed if task.is_urgent_at(at)]
        task = min(urgent, key=lambda task: task.answer_by or at, default=None)
        if task is None:
            task = review_store.claim(
                *(caller.name, at, PAGE_KINDS, sites, until, claim_time),
                only_urgent=bool(claimed),
            ) or min(claimed, key=lambda task: task.claimed_until or claim_time, default=None)
        for other in urgent:
            if other is not task:
                review_store.release(other)
        faults.reach_point("review.claimed")
        tasks = expose_tasks(transaction, state, caller, [] if task is None else [task], at)
        waiting = count_waiting(transaction, state, caller, at, claim_time)
        all_tasks = review_store.list_claimed(caller.name, claim_time, ALL_REVIEW_KINDS, sites)
        conflict_count = sum(task.kind == ADJUDICATE for task in all_tasks)
        return PageTask(
            next(iter(tasks), None),
            to_go=len(all_tasks) - conflict_count + waiting["blind"] + waiting["assisted"],
            to_settle=conflict_count + waiting["adjudicate"],
        )


def load_own_reviews(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    claim_time: datetime | None = None,
    *,
    task_number: int | None = None,
) -> ReviewerTasks:
    """Return a reviewer's claimed cases, and the numbers of open cases.

    `claim_time` is `at` on the clock of claims; None means the same clock. `task_number` is the one
    task to show, if it is claimed.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    with database.begin_write() as transaction:
        return load_reviewer_tasks(
            transaction, state, caller, at, claim_time, task_number=task_number
        )


def release_review(
    database: Database, caller: Caller, state: RolloutState, task_number: int
) -> None:
    """Release a claimed case; nothing changes if the claim has ended.

    Raises:
        UnknownReviewError: the caller never had a review task of that number.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    with database.begin_write() as transaction:
        review_store = ReviewTaskStore(transaction, state.rollout)
        review = review_store.find(task_number, lock=True)
        if review is not None and review.is_claimed_by(caller.name):
            review_store.release(review)
        elif review is None or not was_assigned(transaction, state, caller, review):
            raise build_unknown_review_error(task_number)


def release_own_claims(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    claim_time: datetime | None = None,
) -> None:
    """Release all claims of the caller. `claim_time` is `at` on the clock of claims.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    with database.begin_write() as transaction:
        review_store = ReviewTaskStore(transaction, state.rollout)
        for task in review_store.list_claimed(
            caller.name, claim_time or at, ALL_REVIEW_KINDS, sites
        ):
            review_store.release(task)


def release_reviewer_claims(
    database: Database, caller: Caller, state: RolloutState, reviewer: str
) -> int:
    """Release all claims of an absent reviewer; return their number.

    Otherwise the claims expire by themselves.

    Raises:
        NotAllowedError: the caller is not an operator anywhere in the rollout.
    """
    require_permission(caller, Permission.OPERATE, state.rollout.name)
    sites = find_permitted_sites(caller, Permission.OPERATE, state)
    with database.begin_write() as transaction:
        return ReviewTaskStore(transaction, state.rollout).release_all(reviewer, sites)


def load_overdue_reviews(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    *,
    limit: int = 100,
    claim_time: datetime | None = None,
) -> Sequence[OverdueTask]:
    """Return undecided tasks in the last quarter of `grace`, or past it.

    Tasks that expired over a week ago are excluded. Gold cases are listed as blind ones.
    `claim_time` is `at` on the clock of claims; None means the same clock.

    Raises:
        NotAllowedError: the caller is not an operator anywhere in the rollout.
    """
    require_permission(caller, Permission.OPERATE, state.rollout.name)
    sites = find_permitted_sites(caller, Permission.OPERATE, state)
    period = {"since": at - timedelta(days=7), "until": at + state.policy.evidence.grace / 4}
    with database.begin_read() as transaction:
        overdue_reviews = ReviewTaskStore(transaction, state.rollout).list_overdue(
            **period, sites=sites, limit=limit
        )
        cases = NewestRecords(transaction, state.rollout).load_cases(
            {review.case_id for review in overdue_reviews}
        )
    return [
        OverdueTask(
            review=review.id,
            case=cases[review.case_id].key,
            site=review.site,
            kind=find_queue(review.kind),
            due_at=review.due_at,
            reviewer=None if review.is_free(at, claim_time or at) else review.reviewer,
        )
        for review in overdue_reviews
        if review.case_id in cases and review.due_at is not None
    ]
