"""The review queue: claiming and releasing cases, and what a reviewer may see of them.

Exposures are recorded in the transaction that returns the case. Before the decision is stored, a
reviewer gets nothing derived from predictions, except in assisted tasks.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from rollout import faults
from rollout.data.database.session import Database, Transaction
from rollout.data.records.case_pages import NewestRecords
from rollout.data.reviews.reviews import (
    DONE,
    ReviewTaskLists,
    ReviewTaskStore,
    SiteFilter,
    StoredReviewTask,
)
from rollout.data.tables.record_tables import encode_json
from rollout.engine.decide.permissions import (
    ROLES_BY_PERMISSION,
    Caller,
    Permission,
    require_permission,
)
from rollout.engine.decide.policy_changes import find_by_any_name
from rollout.engine.decide.scope import Scope
from rollout.engine.records.records import Case, Prediction
from rollout.engine.records.reviews import (
    ADJUDICATE,
    ASSISTED,
    BLIND,
    BLIND_KINDS,
    CASE,
    DECISIONS,
    PREDICTION,
    REVIEW_PAGE,
)
from rollout.features.records.record_notes import open_reviews, withdraw_answered_reviews
from rollout.features.reviews.decisions import (
    DecisionDraft,
    StoredDecision,
    build_unknown_review_error,
    check_is_user,
    find_hidden_cases,
    record_exposure,
    store_exposures,
    submit_decision,
    was_assigned,
)
from rollout.features.reviews.requested_reviews import request_adjudication, seed_gold_case
from rollout.kernel.units import Lever
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service

ReviewQueue = Literal["blind", "assisted", "adjudicate"]
REVIEW_KINDS_BY_QUEUE: Final[Mapping[ReviewQueue, Collection[str]]] = {
    "blind": BLIND_KINDS,
    "assisted": (ASSISTED,),
    "adjudicate": (ADJUDICATE,),
}
"""The queues as reviewers see them; gold cases are in the blind one."""

ALL_REVIEW_KINDS: Final = tuple(kind for kinds in REVIEW_KINDS_BY_QUEUE.values() for kind in kinds)

LeverAnswers = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class ClaimedTask:
    """A case that a reviewer has claimed.

    Attributes:
        review: number of the review task.
        kind: `blind`, `assisted` or `adjudicate`.
        answer_by: until when the acting client can use the answer.
        claimed_until: end of the claim.
        proposal: prediction of the acting version in an assisted task, None if missing.
        verdicts: distinct human answers in an adjudication, without names.
    """

    review: int
    kind: ReviewQueue
    case: Case
    answer_by: datetime | None
    claimed_until: datetime
    proposal: Prediction | None = None
    verdicts: tuple[LeverAnswers, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewerTasks:
    """A reviewer's claimed cases, and the number of open cases by queue."""

    levers: tuple[Lever, ...]
    tasks: tuple[ClaimedTask, ...]
    waiting: Mapping[ReviewQueue, int]


def find_permitted_sites(
    caller: Caller, act: Permission, state: RolloutState
) -> frozenset[str] | None:
    """Return the sites where a caller has a permission; None for all sites."""
    rollout_name = state.rollout.name
    sites = {
        role_assignment.site
        for role_assignment in caller.role_assignments
        if role_assignment.role in ROLES_BY_PERMISSION[act]
        and role_assignment.rollout in {"", rollout_name}
    }
    return None if "" in sites else frozenset(sites)


def find_queue(kind: str) -> ReviewQueue:
    """Return the queue of a kind of review task."""
    if kind == ASSISTED:
        return "assisted"
    return "adjudicate" if kind == ADJUDICATE else "blind"


def load_reviewer_tasks(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    at: datetime,
    claim_time: datetime | None = None,
    *,
    task_number: int | None = None,
) -> ReviewerTasks:
    """Return a reviewer's claimed cases, and record new exposures.

    `claim_time` is `at` on the clock of claims; None means the same clock. `task_number` is the one
    task to show, if it is claimed.
    """
    claim_time = claim_time or at
    review_store = ReviewTaskStore(transaction, state.rollout)
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    claimed_reviews = [
        review
        for review in review_store.list_claimed(caller.name, claim_time, ALL_REVIEW_KINDS, sites)
        if task_number in {None, review.id}
    ]
    tasks = expose_tasks(transaction, state, caller, claimed_reviews, at)
    waiting_counts = count_waiting(transaction, state, caller, at, claim_time)
    return ReviewerTasks(state.policy.levers, tasks, waiting_counts)


def expose_tasks(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    claimed_reviews: Sequence[StoredReviewTask],
    at: datetime,
) -> tuple[ClaimedTask, ...]:
    """Return claimed tasks with what is shown of them, and record new exposures."""
    tasks = _build_tasks(transaction, state, claimed_reviews)
    exposure_entries = [
        (review.case_id, content)
        for review in claimed_reviews
        for content in _list_exposed_content(review, tasks[review.case_id])
    ]
    store_exposures(transaction, state, caller, exposure_entries, page=REVIEW_PAGE, at=at)
    faults.reach_point("review.shown")
    return tuple(tasks[review.case_id] for review in claimed_reviews)


def count_waiting(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    at: datetime,
    claim_time: datetime,
) -> Mapping[ReviewQueue, int]:
    """Return the number of cases that a reviewer could claim, by queue."""
    review_store = ReviewTaskStore(transaction, state.rollout, state.list_sites_in_use())
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    return {
        queue: review_store.count_available(caller.name, at, kinds, sites, claim_time)
        for queue, kinds in REVIEW_KINDS_BY_QUEUE.items()
    }


def _build_tasks(
    transaction: Transaction, state: RolloutState, claimed_reviews: Iterable[StoredReviewTask]
) -> Mapping[int, ClaimedTask]:
    """Return the tasks by case, in queue order."""
    by_case = {review.case_id: review for review in claimed_reviews}
    newest = NewestRecords(transaction, state.rollout)
    cases = newest.load_cases(by_case)
    visible_case_ids = {n for n, review in by_case.items() if review.kind not in BLIND_KINDS}
    predictions = newest.load_predictions(visible_case_ids)
    adjudicated_ids = {n for n in visible_case_ids if by_case[n].kind == ADJUDICATE}
    decisions = _load_blind_decisions(transaction, state, adjudicated_ids)
    tasks = {}
    for case_id, review in by_case.items():
        proposal = find_proposal(state.scope, review, predictions.get(case_id, {}))
        decision_answers = decisions.get(case_id, [])
        if review.kind == ADJUDICATE and proposal is not None:
            decision_answers, proposal = [*decision_answers, proposal.answers], None
        assert review.claimed_until is not None  # noqa: S101 - it is held
        tasks[case_id] = ClaimedTask(
            review=review.id,
            kind=find_queue(review.kind),
            case=cases[case_id],
            answer_by=review.answer_by,
            claimed_until=review.claimed_until,
            proposal=proposal,
            verdicts=tuple(
                answers
                for _, answers in sorted(
                    {encode_json(dict(item)): item for item in decision_answers}.items()
                )
            ),
        )
    return tasks


def find_proposal(
    scope: Scope, review: StoredReviewTask, predictions: Mapping[str, Prediction]
) -> Prediction | None:
    """Return the prediction that a task shows, under whatever name its version gave it, or None."""
    if review.version is None:
        return None
    return predictions.get(review.version) or find_by_any_name(
        scope, scope.get_first_name(review.version), predictions
    )


def _load_blind_decisions(
    transaction: Transaction, state: RolloutState, case_ids: Collection[int]
) -> Mapping[int, list[LeverAnswers]]:
    """Return the blind decisions on cases, from tasks or from records."""
    reviews = ReviewTaskStore(transaction, state.rollout).list_of_cases(case_ids)
    done_review_ids = {
        review.id for review in reviews if review.kind == BLIND and review.state == DONE
    }
    decisions = NewestRecords(transaction, state.rollout).load_decisions(case_ids)
    return {
        case_id: [
            decision.answers
            for decision in case_decisions.values()
            if decision.review is None or decision.review in done_review_ids
        ]
        for case_id, case_decisions in decisions.items()
    }


def _list_exposed_content(review: StoredReviewTask, task: ClaimedTask) -> Iterator[str]:
    """Yield the kinds of content that a task shows of its case."""
    yield CASE
    if task.proposal is not None or (task.verdicts and review.version is not None):
        yield PREDICTION
    if task.verdicts:
        yield DECISIONS


@dataclass(frozen=True, slots=True)
class AdjudicationCase:
    """A case that needs adjudication; `is_claimed` if a reviewer has it now."""

    case: Case
    since: datetime
    is_claimed: bool


def load_adjudication_cases(
    database: Database,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    *,
    limit: int = 100,
    claim_time: datetime | None = None,
) -> tuple[AdjudicationCase, ...]:
    """Return the cases that need adjudication at the caller's sites, oldest first.

    Cases that the caller may still decide blind are excluded. `claim_time` is `at` on the clock of
    claims; None means the same clock.

    Raises:
        NotAllowedError: the caller is not an operator anywhere in the rollout.
    """
    require_permission(caller, Permission.OPERATE, state.rollout.name)
    with database.begin_read() as transaction:
        open_reviews = ReviewTaskLists(transaction, state.rollout).list_adjudications(
            find_permitted_sites(caller, Permission.OPERATE, state), limit
        )
        cases = NewestRecords(transaction, state.rollout).load_cases(
            {r.case_id for r in open_reviews}
        )
        keys = [case.key for case in cases.values()]
        hidden_keys = find_hidden_cases(transaction, state, caller, keys, at)
    return tuple(
        AdjudicationCase(
            cases[review.case_id],
            review.opened_at,
            is_claimed=not review.is_free(at, claim_time or at),
        )
        for review in open_reviews
        if review.case_id in cases and cases[review.case_id].key not in hidden_keys
    )


MAX_ROLLOUTS = 20
"""Number of rollouts that are counted, by name."""


def count_pending_reviews(service: Service, caller: Caller, at: datetime) -> Mapping[str, int]:
    """Return the caller's claimed and claimable cases, by rollout with any."""
    states = [cached_rollout.state for cached_rollout in service.state_cache.load_all()]
    reviewable_states = [
        state
        for state in states
        if caller.has_permission_somewhere(Permission.REVIEW, state.rollout.name)
    ][:MAX_ROLLOUTS]
    if not reviewable_states:
        return {}
    with service.database.begin_read() as transaction:
        counts = {
            state.rollout.name: _count_pending(
                transaction, caller, state, at, service.find_wall_time(at)
            )
            for state in reviewable_states
        }
    return {rollout_name: count for rollout_name, count in counts.items() if count}


def _count_pending(
    transaction: Transaction,
    caller: Caller,
    state: RolloutState,
    at: datetime,
    claim_time: datetime,
) -> int:
    review_store = ReviewTaskStore(transaction, state.rollout)
    sites = find_permitted_sites(caller, Permission.REVIEW, state)
    claimed_count = len(review_store.list_claimed(caller.name, claim_time, ALL_REVIEW_KINDS, sites))
    return claimed_count + sum(count_waiting(transaction, state, caller, at, claim_time).values())


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
    queues = (
        (PAGE_KINDS, REVIEW_KINDS_BY_QUEUE["adjudicate"])
        if kind is None
        else (REVIEW_KINDS_BY_QUEUE[kind],)
    )
    claim_time = claim_time or at
    until = claim_time + CLAIM_DURATION
    with _open_claims(database, caller, state) as (transaction, review_store, sites):
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


@contextmanager
def _open_claims(
    database: Database, caller: Caller, state: RolloutState
) -> Iterator[tuple[Transaction, ReviewTaskStore, SiteFilter]]:
    """Open a transaction that claims, one of a reviewer at a time; yield the sites, too."""
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    check_is_user(caller)
    with database.begin_write() as transaction:
        review_store = ReviewTaskStore(transaction, state.rollout, state.list_sites_in_use())
        review_store.lock_reviewer(caller.name)
        yield transaction, review_store, find_permitted_sites(caller, Permission.REVIEW, state)


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
    claim_time = claim_time or at
    until = claim_time + CLAIM_DURATION
    with _open_claims(database, caller, state) as (transaction, review_store, sites):
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
