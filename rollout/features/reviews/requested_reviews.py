"""Reviews that follow from decisions or that users ask for: adjudications, and gold cases."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from rollout.data.database.session import Database, Transaction
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ANY_REVIEWER, ExposureStore
from rollout.data.reviews.reviews import DONE, ReviewTaskStore
from rollout.engine.decide.permissions import Caller, Permission, require_permission
from rollout.engine.records.records import (
    Case,
)
from rollout.engine.records.reviews import (
    ADJUDICATE,
    BLIND,
    DECISIONS,
    SEEDED,
    NoConflictError,
    PlannedReviewTask,
    ReviewStillOpenError,
    UnknownCaseError,
    check_decision,
    has_disagreement,
)
from rollout.features.records.record_notes import build_review
from rollout.kernel.errors import UnknownVersionError
from rollout.live.rollout_state import RolloutState

SEED_PAGE = "gold-case"


def open_adjudication_if_split(
    transaction: Transaction, state: RolloutState, case_id: int, at: datetime
) -> None:
    """Open an adjudication if all blind decisions are in and two differ."""
    review_store = ReviewTaskStore(transaction, state.rollout)
    blind_reviews = [
        review for review in review_store.list_of_cases([case_id]) if review.kind == BLIND
    ]
    if any(review.is_wanted_at(at) for review in blind_reviews):
        return
    done_review_ids = {review.id for review in blind_reviews if review.state == DONE}
    newest = NewestRecords(transaction, state.rollout)
    decisions = newest.load_decisions([case_id]).get(case_id, {})
    if has_disagreement(
        [decision.answers for decision in decisions.values() if decision.review in done_review_ids]
    ):
        cases = newest.load_cases([case_id])
        review_store.open_tasks(
            build_review(state, case_id, case, PlannedReviewTask(ADJUDICATE), at)
            for case in cases.values()
        )


def request_adjudication(
    database: Database,
    caller: Caller,
    state: RolloutState,
    key: str,
    version: str | None,
    at: datetime,
) -> None:
    """Request an adjudication by another reviewer, for reports and training only.

    `version` is the version whose answer is shown beside the decisions.

    Raises:
        NotAllowedError: the caller does not operate the case's site.
        UnknownCaseError: there is no such case.
        UnknownVersionError: the version has no prediction for the case.
        ReviewStillOpenError: blind review tasks are open.
        NoConflictError: no two decisions differ, nor one from the version's answer.
    """
    require_permission(caller, Permission.OPERATE, state.rollout.name)
    with database.begin_write() as transaction:
        case_id, case = find_stored_case(transaction, state, key)
        require_permission(caller, Permission.OPERATE, state.rollout.name, (case.site,))
        _check_closed(transaction, state, case_id, key, at)
        newest = NewestRecords(transaction, state.rollout)
        predictions = newest.load_predictions([case_id]).get(case_id, {})
        if version is not None and version not in predictions:
            raise UnknownVersionError(
                f"{version} has no prediction for {key}; others have: {', '.join(predictions)}"
            )
        decisions = newest.load_decisions([case_id]).get(case_id, {}).values()
        _check_conflict(
            key,
            [decision.answers for decision in decisions],
            None if version is None else predictions[version].answers,
        )
        ReviewTaskStore(transaction, state.rollout).open_tasks(
            [build_review(state, case_id, case, PlannedReviewTask(ADJUDICATE), at, version=version)]
        )


def seed_gold_case(
    database: Database,
    caller: Caller,
    state: RolloutState,
    key: str,
    answers: Mapping[str, str],
    *,
    reviewer_count: int,
    at: datetime,
) -> None:
    """Open review tasks for a case with a known answer.

    Their decisions are stored with the task, not as records, so they are never evidence. The caller
    is an admin; they know the answer, so they don't get the case.

    Raises:
        NotAllowedError: the caller is no admin.
        UnknownCaseError: there is no such case.
        InvalidDecisionError: a lever has no such answer.
        ReviewStillOpenError: blind review tasks are open, or a report that includes the case went
            to unknown readers.
    """
    require_permission(caller, Permission.ADMINISTER, state.rollout.name)
    check_decision(state.policy, answers, unsure=False)
    with database.begin_write() as transaction:
        case_id, case = find_stored_case(transaction, state, key)
        _check_closed(transaction, state, case_id, key, at)
        exposures = ExposureStore(transaction, state.rollout)
        _check_not_reported(exposures.load_figures_until(ANY_REVIEWER), case)
        exposures.add([(case_id, DECISIONS)], reviewer=caller.name, page=SEED_PAGE, at=at)
        ReviewTaskStore(transaction, state.rollout).open_tasks(
            build_review(
                state,
                case_id,
                case,
                PlannedReviewTask(SEEDED, seat_number),
                at,
                known_answers=dict(answers),
            )
            for seat_number in range(1, reviewer_count + 1)
        )


def find_stored_case(transaction: Transaction, state: RolloutState, key: str) -> tuple[int, Case]:
    """Return a case with its number.

    Raises:
        UnknownCaseError: there is no such case.
    """
    cases = NewestRecords(transaction, state.rollout).load_cases(
        ExternalKeys(transaction, state.rollout).find_ids([key]).values()
    )
    if not cases:
        raise UnknownCaseError(f"no case {key}: send it to `records` first, unless it was erased")
    return next(iter(cases.items()))


def _check_closed(
    transaction: Transaction, state: RolloutState, case_id: int, key: str, at: datetime
) -> None:
    reviews = ReviewTaskStore(transaction, state.rollout).list_of_cases([case_id])
    if any(review.kind == BLIND and review.is_wanted_at(at) for review in reviews):
        raise ReviewStillOpenError(
            f"{key} still has an open blind review; ask again once it is done"
        )


def _check_conflict(
    key: str,
    decided: Sequence[Mapping[str, str | None]],
    predicted: Mapping[str, str | None] | None,
) -> None:
    """Raise unless people differ, or one of them from the version's answer."""
    if has_disagreement([*decided, *([] if predicted is None else [predicted])]):
        return
    reason = (
        f"the reviewers of {key} agree"
        if len(decided) > 1
        else f"{key} has {'one' if decided else 'no'} decision"
    )
    version_text = "" if predicted is None else ", and the version's answer is no other"
    raise NoConflictError(
        f"{reason}{version_text}: nothing to adjudicate; name a version whose answer differs to"
        " have it judged"
    )


def _check_not_reported(reported_until: datetime | None, case: Case) -> None:
    if reported_until is not None and case.occurred_at < reported_until:
        raise ReviewStillOpenError(
            f"a report up to {reported_until.isoformat()} went to a channel whose readers are not"
            f" known, so a reviewer may have read about {case.key}: take a later case,"
            " and name the channel's readers in its `readers`"
        )
