"""Storing a reviewer's decision on a claimed case, and control of what was shown before it.

A decision is stored with the recorded exposure, and its case is queued for counting in the same
transaction. A decision on a gold case gets the same response, but becomes no record.

Exposure: reviewers see no predictions of cases that they can still decide blind, whatever other
roles they have, nor do programs of cases whose decisions they can still send. Exposures are
recorded before the answer is returned, and determine how blind a decision is.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rollout import faults
from rollout.data.database.session import Database, Transaction
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import FIGURES, ExposureEntry, ExposureStore, IncomingCases
from rollout.data.records.record_check import build_basis, list_pages
from rollout.data.records.records import RecordReceipt, RecordStatus, RecordStore, StoredBatch
from rollout.data.reviews.reviews import DONE, WITHDRAWN, ReviewTaskStore, StoredReviewTask
from rollout.data.tables.record_tables import decode_instant
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.records.records import Case, Decision
from rollout.engine.records.reviews import (
    BLIND,
    BLIND_KINDS,
    CASE,
    DECISIONS,
    PREDICTION,
    REVEALING_CONTENT,
    REVIEW_PAGE,
    SEEDED,
    DecisionConflictError,
    ReviewReassignedError,
    UnknownReviewError,
    check_decision,
    check_started_at,
    compute_due_time,
    compute_exposure,
    fold_name,
)
from rollout.features.records.decision_places import DecisionPlaces
from rollout.features.reviews.requested_reviews import open_adjudication_if_split
from rollout.kernel.calendar.instants import to_micros
from rollout.kernel.errors import StaleRevisionError, UserRequiredError
from rollout.kernel.policy.evidence_sources import REVIEWS
from rollout.kernel.units import group_pairs
from rollout.live.evidence.unit_counting import queue_new_cases
from rollout.live.rollout_state import RolloutState


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionDraft:
    """A decision as sent; `claimed_exposure` can only worsen the recorded exposure."""

    answers: Mapping[str, str | None] = field(default_factory=dict)
    unsure: bool = False
    note: str | None = None
    started_at: datetime | None = None
    claimed_exposure: str = BLIND
    supersedes: int | None = None


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A decision as stored."""

    review: int
    case: str
    answers: Mapping[str, str | None]
    unsure: bool
    note: str | None
    revision: int
    at: datetime


def submit_decision(
    database: Database,
    caller: Caller,
    state: RolloutState,
    task_number: int,
    request: DecisionDraft,
    at: datetime,
) -> StoredDecision:
    """Store a reviewer's decision and queue its case for counting.

    Repeating a request returns the same result. A changed decision is refused unless it names the
    revision that it supersedes and the prediction was not shown to the reviewer meanwhile.

    Raises:
        UnknownReviewError: the caller has no review task of that number.
        ReviewReassignedError: the claim expired and another reviewer has the case.
        InvalidDecisionError: a lever has no such answer.
        DecisionConflictError: the caller has a different decision on the case.
        NotAllowedError: the caller may no longer review at the site.
        UserRequiredError: the caller is a service account.
    """
    require_permission(caller, Permission.REVIEW, state.rollout.name)
    check_is_user(caller)
    with database.begin_write() as transaction:
        review = load_own_review(transaction, state, caller, task_number)
        check_decision(state.policy, request.answers, unsure=request.unsure, note=request.note)
        check_started_at(request.started_at, at)
        store_decision = _store_gold_decision if review.kind == SEEDED else _store_decision
        return store_decision(transaction, state, caller, review, request, at)


def _store_decision(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    review: StoredReviewTask,
    request: DecisionDraft,
    at: datetime,
) -> StoredDecision:
    newest = NewestRecords(transaction, state.rollout)
    previous_decision = (
        newest.load_decisions([review.case_id]).get(review.case_id, {}).get(caller.name)
    )
    if (
        previous_decision is not None
        and previous_decision.review == review.id
        and _is_same_decision(previous_decision, request)
    ):
        return _build_review_decision(
            review, previous_decision, previous_decision.submitted_at or at
        )
    case = newest.load_cases([review.case_id])[review.case_id]
    entries = _load_exposures(transaction, state, caller, review, case)
    revision = _compute_next_revision(previous_decision, review, request, entries)
    if review.is_wanted_at(at):
        entries -= _filter_figures(entries)  # no figure contains the case before that
    decision = Decision(
        key=case.key,
        reviewer=caller.name,
        answers=_list_given_answers(request),
        claims=request.claimed_exposure,
        exposure=compute_exposure(review.kind, list_pages(entries), request.claimed_exposure),
        unsure=request.unsure,
        started_at=request.started_at,
        submitted_at=at,
        note=request.note,
        revision=revision,
        seat=review.task_number if review.kind == BLIND else None,
        review=review.id,
        basis=build_basis(entries, review),
        source=REVIEWS,
    )
    sender = Accounts(transaction).add_id(caller.name)
    # a case that nobody has registered is decided where the page shows it
    placed_cases = DecisionPlaces(transaction, state, at).list_shown(case, review.case_id)
    stored_batch = RecordStore(transaction, state.rollout).store(
        [decision, *placed_cases], received_at=at, sender=sender, draw_case=state.draw_case
    )
    if stored_batch.results[0].status is not RecordStatus.ACCEPTED:
        raise DecisionConflictError(stored_batch.results[0].reason)
    faults.reach_point("review.decided")
    _close_review(transaction, state, review, decision, stored_batch, at)
    if review.kind == BLIND:
        open_adjudication_if_split(transaction, state, review.case_id, at)
    return _build_review_decision(review, decision, at)


def _compute_next_revision(
    previous_decision: Decision | None,
    review: StoredReviewTask,
    request: DecisionDraft,
    entries: Collection[ExposureEntry],
) -> int:
    """Return the revision of the new decision.

    Raises:
        DecisionConflictError: the stored decision can't be changed by this request.
    """
    current_revision = 0 if previous_decision is None else previous_decision.revision
    if previous_decision is not None and previous_decision.review != review.id:
        raise DecisionConflictError(
            "you already decided this case in another task; that decision is final"
        )
    if current_revision != (request.supersedes or 0):
        raise DecisionConflictError(
            f"your decision is revision {current_revision}; to change it send `supersedes:"
            f" {current_revision}`"
            if current_revision
            else "you have not decided this case yet; leave `supersedes` out"
        )
    if current_revision and any(
        entry.content in REVEALING_CONTENT and entry.page != REVIEW_PAGE for entry in entries
    ):
        raise DecisionConflictError("you have seen the model's answer, so your decision is final")
    return current_revision + 1


def _load_exposures(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    review: StoredReviewTask,
    case: Case,
) -> frozenset[ExposureEntry]:
    """Return the caller's exposures to a case, with figures that may count it."""
    by_reviewer = IncomingCases(transaction, state.rollout).load_exposures([review.case_id])
    entries = frozenset(by_reviewer.get((review.case_id, fold_name(caller.name)), ()))
    figures_until = ExposureStore(transaction, state.rollout).load_figures_until(caller.name)
    if figures_until is None or figures_until <= case.occurred_at:
        return entries
    return entries | {ExposureEntry(PREDICTION, FIGURES, to_micros(figures_until))}


def _filter_figures(entries: Collection[ExposureEntry]) -> frozenset[ExposureEntry]:
    """Return those that are figures over all cases before some time."""
    return frozenset(entry for entry in entries if entry.page == FIGURES)


def _store_gold_decision(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    review: StoredReviewTask,
    request: DecisionDraft,
    at: datetime,
) -> StoredDecision:
    """Store the decision on a gold case with its review task, not as a record."""
    case = NewestRecords(transaction, state.rollout).load_cases([review.case_id])[review.case_id]
    key = case.key
    previous_decision = (
        None
        if review.gold_decision is None
        else _restore_decision(key, caller, review.id, review.gold_decision)
    )
    if previous_decision is not None and _is_same_decision(previous_decision, request):
        return _build_review_decision(
            review, previous_decision, previous_decision.submitted_at or at
        )
    entries = _load_exposures(transaction, state, caller, review, case)
    revision = _compute_next_revision(previous_decision, review, request, entries)
    if _filter_figures(entries):  # earlier figures may reveal a gold case
        raise build_review_reassigned_error()
    stored_answer: dict[str, Any] = {
        "answers": _list_given_answers(request),
        "claims": request.claimed_exposure,
        "unsure": request.unsure,
        "note": request.note,
        "started_at": None if request.started_at is None else to_micros(request.started_at),
        "submitted_at": to_micros(at),
        "revision": revision,
    }
    decision = _restore_decision(key, caller, review.id, stored_answer)
    stored_batch = StoredBatch(
        (RecordReceipt(RecordStatus.ACCEPTED),), {key: review.case_id}, {review.case_id}, set(), {}
    )
    _close_review(transaction, state, review, decision, stored_batch, at, stored_answer)
    return _build_review_decision(review, decision, at)


def _restore_decision(
    key: str, caller: Caller, review: int, stored_answer: Mapping[str, Any]
) -> Decision:
    started_at = stored_answer["started_at"]
    times = {
        "started_at": None if started_at is None else decode_instant(started_at),
        "submitted_at": decode_instant(stored_answer["submitted_at"]),
    }
    return Decision(
        key=key, reviewer=caller.name, exposure=BLIND, review=review, **{**stored_answer, **times}
    )


def _close_review(
    transaction: Transaction,
    state: RolloutState,
    review: StoredReviewTask,
    decision: Decision,
    stored_batch: StoredBatch,
    at: datetime,
    gold_answer: Mapping[str, Any] | None = None,
) -> None:
    """Close a review task and queue its case.

    Gold cases are queued too, so that response times do not reveal them.
    """
    ReviewTaskStore(transaction, state.rollout).close(
        review, decision.reviewer, at=at, gold_decision=gold_answer
    )
    queue_new_cases(transaction, state, stored_batch, at)
    faults.reach_point("review.due")


def load_own_review(
    transaction: Transaction, state: RolloutState, caller: Caller, task_number: int
) -> StoredReviewTask:
    """Return a review task that the caller claimed or decided, locked.

    The case is locked first, in the order that record ingest uses, which avoids deadlocks.
    """
    review_store = ReviewTaskStore(transaction, state.rollout)
    keys = ExternalKeys(transaction, state.rollout)
    review_row = review_store.find(task_number)
    if review_row is not None:
        keys.find_ids(list(keys.find_keys([review_row.case_id]).values()), lock=True)
    review = review_store.find(task_number, lock=True)
    if review is None or not was_assigned(transaction, state, caller, review):
        raise build_unknown_review_error(task_number)
    if review.reviewer != caller.name or review.state == WITHDRAWN:
        raise build_review_reassigned_error()
    require_permission(caller, Permission.REVIEW, state.rollout.name, (review.site,))
    return review


def was_assigned(
    transaction: Transaction, state: RolloutState, caller: Caller, review: StoredReviewTask
) -> bool:
    """Return whether the caller ever had a review task; others must not learn of it."""
    if review.reviewer == caller.name:
        return True
    case_exposures = ExposureStore(transaction, state.rollout).list_for_reviewer(
        caller.name, [review.case_id]
    )
    return (CASE, REVIEW_PAGE) in case_exposures.get(review.case_id, ())


def build_review_reassigned_error() -> ReviewReassignedError:
    """Return the error for a case that is no longer the caller's."""
    return ReviewReassignedError(
        "another reviewer has claimed or decided this case; take the next one"
    )


def build_unknown_review_error(task_number: int) -> UnknownReviewError:
    """Return the error for a task of others, or for an unknown one."""
    return UnknownReviewError(
        f"you have no review {task_number}; take the next one with `reviews/claims`"
    )


def check_is_user(caller: Caller) -> None:
    """Check that the caller is a user.

    Raises:
        UserRequiredError: the caller is a service account.
    """
    if caller.is_service_account:
        raise UserRequiredError(
            "only users can review; use the key of a user with the role reviewer"
        )


def _list_given_answers(request: DecisionDraft) -> dict[str, str | None]:
    return {lever: answer for lever, answer in request.answers.items() if answer is not None}


def _is_same_decision(previous_decision: Decision, request: DecisionDraft) -> bool:
    """Return whether a stored decision equals the request."""
    stored_values = (
        previous_decision.answers,
        previous_decision.unsure,
        previous_decision.note,
        previous_decision.started_at,
        previous_decision.claims,
    )
    return stored_values == (
        _list_given_answers(request),
        request.unsure,
        request.note,
        request.started_at,
        request.claimed_exposure,
    )


def _build_review_decision(
    review: StoredReviewTask, decision: Decision, at: datetime
) -> StoredDecision:
    return StoredDecision(
        review.id,
        decision.key,
        decision.answers,
        decision.unsure,
        decision.note,
        decision.revision,
        at,
    )


JUDGING: Final = (Permission.SEND_DECISIONS, Permission.SEND_OUTCOMES)
"""Permissions of who sends what judges predictions."""
SENDING: Final = (Permission.SEND_PREDICTIONS,)
CASES_PER_TRANSACTION = 3_000  # keeps write transactions short, so that none delays a stop


def find_hidden_cases(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    keys: Collection[str],
    at: datetime | None = None,
) -> frozenset[str]:
    """Return the cases whose predictions and everything derived may not be shown.

    They are hidden from who may still be asked about them, and, while a blind decision on them can
    still count, from who sends what judges the model.
    """
    unseen_keys = find_unseen_cases(transaction, state, caller, keys, at)
    if not _may_judge(caller, state):
        return unseen_keys
    return unseen_keys | _find_open_cases(transaction, state, caller, keys, at, JUDGING)


def find_unseen_cases(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    keys: Collection[str],
    at: datetime | None = None,
) -> frozenset[str]:
    """Return the cases about which the caller may still be asked blind.

    Decisions of others and outcomes of these cases must be hidden too. Cases that are not stored
    are hidden from all reviewers. A vouched sender's are those that have not closed: its prediction
    counts though decisions came first, so it must not read them.

    Args:
        caller: sees everything that the roles permit if without permission to review at the site
            and without a claim on the case.
        at: now; without it, an expired review task counts as open.
    """
    if caller.name in state.policy.evidence.sources.vouched:
        return _find_open_cases(transaction, state, caller, keys, at, SENDING)
    if not caller.has_permission_somewhere(Permission.REVIEW, state.rollout.name):
        return frozenset()
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(set(keys))
    newest = NewestRecords(transaction, state.rollout)
    cases = newest.load_cases(case_ids.values())
    decisions = newest.load_decisions(case_ids.values())
    blind_reviews = _load_blind_reviews(transaction, state, case_ids.values(), at)
    hidden_keys = {key for key in keys if case_ids.get(key) not in cases}
    for key, case_id in case_ids.items():
        reviews = blind_reviews.get(case_id, [])
        has_claim = any(review.is_claimed_by(caller.name) for review in reviews)
        may_review = has_claim or (
            key not in hidden_keys
            and caller.has_permission(Permission.REVIEW, state.rollout.name, cases[case_id].site)
        )
        has_decided = fold_name(caller.name) in map(fold_name, decisions.get(case_id, {})) or any(
            review.state == DONE and review.reviewer == caller.name for review in reviews
        )
        if may_review and not has_decided and any(review.state != DONE for review in reviews):
            hidden_keys.add(key)
    return frozenset(hidden_keys)


def _find_open_cases(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    keys: Collection[str],
    at: datetime | None,
    permissions: Collection[Permission],
) -> frozenset[str]:
    """Return the cases of sites where the caller has a permission that haven't closed.

    Those that are not stored are among them, and all without `at`.
    """
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(set(keys))
    newest = NewestRecords(transaction, state.rollout)
    received_times = newest.load_received_times(case_ids.values())
    closed_keys = {
        case.key
        for case_id, case in newest.load_cases(case_ids.values()).items()
        if not any(
            caller.has_permission(permission, state.rollout.name, case.site)
            for permission in permissions
        )
        or (
            at is not None
            and at >= compute_due_time(state.policy, case.occurred_at, received_times[case_id])
        )
    }
    return frozenset(keys) - closed_keys


def _may_judge(caller: Caller, state: RolloutState) -> bool:
    """Return whether a program sends what judges; of users it is recorded what they were shown."""
    return caller.is_service_account and any(
        caller.has_permission_somewhere(each, state.rollout.name) for each in JUDGING
    )


def _load_blind_reviews(
    transaction: Transaction, state: RolloutState, case_ids: Collection[int], at: datetime | None
) -> dict[int, list[StoredReviewTask]]:
    """Return requested blind tasks and decided ones, by case."""
    return group_pairs(
        (review.case_id, review)
        for review in ReviewTaskStore(transaction, state.rollout).list_of_cases(case_ids)
        if review.kind in BLIND_KINDS
        and (review.state == DONE or review.is_wanted_at(at or review.opened_at))
    )


def record_exposure(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    keys: Iterable[str],
    *,
    content: str,
    page: str,
    at: datetime,
) -> None:
    """Record what is about to be shown; commit before the answer is returned.

    What the caller sends of these cases afterwards is at least assisted.

    Args:
        transaction: a write transaction.
        content: `prediction`, `verdicts` or `case`.
        page: where it is shown, such as `case`, `divergences` or `report`.
    """
    case_ids = ExternalKeys(transaction, state.rollout).find_ids(set(keys))
    entries = [(case_id, content) for case_id in case_ids.values()]
    store_exposures(transaction, state, caller, entries, page=page, at=at)


def store_exposures(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    entries: Collection[tuple[int, str]],
    *,
    page: str,
    at: datetime,
) -> None:
    """Store exposures by case; of equal ones the first is kept."""
    exposures = ExposureStore(transaction, state.rollout)
    earlier = exposures.list_for_reviewer(caller.name, {number for number, _ in entries})
    new_entries = [
        (number, content)
        for number, content in entries
        if (content, page) not in earlier.get(number, ())
    ]
    exposures.add(new_entries, reviewer=caller.name, page=page, at=at)


def record_shown_cases(
    database: Database,
    state: RolloutState,
    caller: Caller,
    keys: Sequence[str],
    at: datetime,
    *,
    page: str,
    contents: Sequence[str] = (PREDICTION, DECISIONS),
) -> None:
    """Record the cases of a page in short transactions, before it is returned.

    Nothing is recorded for service accounts.

    Raises:
        StaleRevisionError: the caller claimed one of the cases since they were read.
    """
    if caller.is_service_account:
        return
    for start in range(0, len(keys), CASES_PER_TRANSACTION):
        batch = keys[start : start + CASES_PER_TRANSACTION]
        with database.begin_write() as transaction:
            record_unclaimed_cases(
                transaction, state, caller, batch, at, page=page, contents=contents
            )


def record_unclaimed_cases(
    transaction: Transaction,
    state: RolloutState,
    caller: Caller,
    keys: Collection[str],
    at: datetime,
    *,
    page: str,
    contents: Sequence[str] = (PREDICTION, DECISIONS),
) -> None:
    """Record the cases of a page, unless the caller claimed one meanwhile.

    Nothing is recorded for service accounts: no case on it is one that they can judge.

    Raises:
        StaleRevisionError: the caller claimed one of the cases since they were read.
    """
    for content in () if caller.is_service_account else contents:
        record_exposure(transaction, state, caller, keys, content=content, page=page, at=at)
    if find_hidden_cases(transaction, state, caller, keys, at):
        raise StaleRevisionError("you have just been given one of these cases; ask again")
