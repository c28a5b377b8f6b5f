"""The caller's last decisions, to read or change them.

Gold cases are included and look like other cases.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Final

from rollout.data.database.session import Database, Transaction
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reviews.reviews import ReviewTaskLists, StoredReviewTask
from rollout.data.tables.record_tables import decode_instant
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.decide.scope import Scope
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.engine.records.reviews import BLIND, REVEALING_CONTENT, REVIEW_PAGE, SEEDED
from rollout.features.reviews.decisions import build_unknown_review_error
from rollout.features.reviews.reviews import (
    ReviewQueue,
    find_proposal,
    find_queue,
)
from rollout.live.rollout_state import RolloutState

MAX_OWN_DECISIONS: Final = 12
"""Number of decisions shown."""

MAX_TIMED_DECISIONS: Final = 500
"""Number of decisions whose times are summed up."""


@dataclass(frozen=True, slots=True)
class OwnDecision:
    """A decision of the caller.

    Attributes:
        task_number: number of the review task.
        kind: queue of the review task.
        decision: as stored; its answers are empty if the caller was unsure.
        at: time of submission.
        proposal: prediction of the acting version, for assisted tasks.
        is_final: the prediction was shown, so the decision can't be changed.
    """

    task_number: int
    kind: ReviewQueue
    case: Case
    decision: Decision
    at: datetime
    proposal: Prediction | None
    is_final: bool


@dataclass(frozen=True, slots=True)
class OwnDecisions:
    """Number of decided cases since a time, and the last ones, newest first.

    Attributes:
        count: decided cases since the time, gold cases included.
        median_seconds: median time from opening a case to its answer, since the time; None
            without a timed decision. Of the newest 500 decisions.
        unsure_share: share of them without an answer; None without decisions.
        recent_decisions: the last ones, however old.
    """

    count: int
    median_seconds: float | None
    unsure_share: float | None
    recent_decisions: tuple[OwnDecision, ...]


def load_own_decisions(
    database: Database,
    caller: Caller,
    state: RolloutState,
    since: datetime,
    *,
    limit: int = MAX_OWN_DECISIONS,
) -> OwnDecisions:
    """Return the decisions of the caller.

    Args:
        caller: a user with the permission to review.
        since: start of the count.
        limit: maximum number of decisions, however old they are.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    with database.begin_read() as transaction:
        review_lists = ReviewTaskLists(transaction, state.rollout)
        closed_reviews = review_lists.list_last_decided(caller.name, limit)
        submissions = review_lists.list_submissions(caller.name, since, MAX_TIMED_DECISIONS)
        return OwnDecisions(
            review_lists.count_decided(caller.name, since),
            *_summarize_submissions(submissions),
            tuple(_build_own_decisions(transaction, state, caller, closed_reviews)),
        )


def _summarize_submissions(
    submissions: Sequence[tuple[datetime | None, datetime, bool]],
) -> tuple[float | None, float | None]:
    """Return the median time in seconds and the share of unsure ones; None without any.

    A negative time means a wrong clock and is excluded, as in reports.
    """
    times = [
        (ended_at - started_at).total_seconds()
        for started_at, ended_at, _ in submissions
        if started_at is not None and started_at <= ended_at
    ]
    unsure_count = sum(is_unsure for _, _, is_unsure in submissions)
    return (
        median(times) if times else None,
        unsure_count / len(submissions) if submissions else None,
    )


def load_own_decision(
    database: Database, caller: Caller, state: RolloutState, review_id: int
) -> OwnDecision:
    """Return one decision of the caller.

    Raises:
        NotAllowedError: the caller may not review anywhere in the rollout.
        UnknownReviewError: the caller decided no task of that number.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    with database.begin_read() as transaction:
        closed_review = ReviewTaskLists(transaction, state.rollout).find_decided(
            caller.name, review_id
        )
        own_decisions = (
            []
            if closed_review is None
            else _build_own_decisions(transaction, state, caller, [closed_review])
        )
        if not own_decisions:
            raise build_unknown_review_error(review_id)
        return own_decisions[0]


def _build_own_decisions(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    closed_reviews: Sequence[tuple[StoredReviewTask, datetime]],
) -> list[OwnDecision]:
    case_ids = [review.case_id for review, _ in closed_reviews]
    newest = NewestRecords(transaction, state.rollout)
    cases, decisions = newest.load_cases(case_ids), newest.load_decisions(case_ids)
    proposals = _load_proposals(newest, state.scope, [review for review, _ in closed_reviews])
    fixed_case_ids = _find_fixed_cases(transaction, state, caller, cases)
    own_decisions = []
    for review, at in closed_reviews:
        case_id = review.case_id
        decision = _find_decision(review, decisions.get(case_id, {}).get(caller.name))
        if case_id in cases and decision is not None:
            own_decisions.append(
                OwnDecision(
                    task_number=review.id,
                    kind=find_queue(review.kind),
                    case=cases[case_id],
                    decision=decision,
                    at=at,
                    proposal=proposals.get(case_id),
                    is_final=case_id in fixed_case_ids,
                )
            )
    return own_decisions


def _find_decision(review: StoredReviewTask, stored_decision: Decision | None) -> Decision | None:
    """Return the decision of a task; the task itself holds that of a gold case."""
    if review.kind != SEEDED or review.gold_decision is None:
        return stored_decision
    review_answer = review.gold_decision
    return Decision(
        key="",
        reviewer=review.reviewer or "",
        answers=review_answer["answers"],
        exposure=BLIND,
        note=review_answer["note"],
        revision=review_answer["revision"],
        started_at=None
        if review_answer["started_at"] is None
        else decode_instant(review_answer["started_at"]),
    )


def _load_proposals(
    newest: NewestRecords, scope: Scope, reviews: Sequence[StoredReviewTask]
) -> Mapping[int, Prediction]:
    """Return the acting version's predictions of assisted tasks, by case."""
    assisted = {
        review.case_id: review for review in reviews if find_queue(review.kind) == "assisted"
    }
    predictions = newest.load_predictions(assisted.keys())
    proposals = {
        case_id: find_proposal(scope, review, predictions.get(case_id, {}))
        for case_id, review in assisted.items()
    }
    return {case_id: answer for case_id, answer in proposals.items() if answer is not None}


def _find_fixed_cases(
    transaction: Transaction, state: RolloutState, caller: Caller, cases: Mapping[int, Case]
) -> Collection[int]:
    """Return cases whose exposure prevents the caller from changing the decision."""
    exposures = ExposureStore(transaction, state.rollout)
    case_exposures = exposures.list_for_reviewer(caller.name, cases.keys())
    figures_until = exposures.load_figures_until(caller.name)
    return {
        case_id
        for case_id, case in cases.items()
        if (figures_until is not None and case.occurred_at < figures_until)
        or any(
            content in REVEALING_CONTENT and page != REVIEW_PAGE
            for content, page in case_exposures.get(case_id, ())
        )
    }
