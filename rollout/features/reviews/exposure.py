"""Exposure control: which predictions a caller may see, and a record of what was shown.

Reviewers see no predictions of cases that they can still decide blind, whatever other roles they
have, nor do programs of cases whose decisions they can still send. Exposures are recorded before
the answer is returned, and determine how blind a decision is.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final

from rollout.data.database.session import Database, Transaction
from rollout.data.records.case_pages import NewestRecords
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reviews.reviews import DONE, ReviewTaskStore, StoredReviewTask
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.records.reviews import BLIND_KINDS, DECISIONS, PREDICTION, compute_due_time
from rollout.kernel.errors import StaleRevisionError
from rollout.live.rollout_state import RolloutState

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
            key not in hidden_keys and _is_reviewer_at(caller, state, cases[case_id].site)
        )
        has_decided = caller.name in decisions.get(case_id, {}) or any(
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
    reviews_by_case: dict[int, list[StoredReviewTask]] = {}
    for review in ReviewTaskStore(transaction, state.rollout).list_of_cases(case_ids):
        is_asked = review.is_wanted_at(at or review.opened_at)
        if review.kind in BLIND_KINDS and (is_asked or review.state == DONE):
            reviews_by_case.setdefault(review.case_id, []).append(review)
    return reviews_by_case


def _is_reviewer_at(caller: Caller, state: RolloutState, site: str) -> bool:
    return caller.has_permission(Permission.REVIEW, state.rollout.name, site)


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
