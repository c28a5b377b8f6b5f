"""What may be shown to whom, and the note of what was: the one gate of every page and report.

A prediction is kept from whoever could still judge its case blind, whatever other roles they
have. What is shown is noted in the transaction before the answer leaves, and from then on decides
how blind a verdict is.
"""

from collections.abc import Collection, Iterable
from datetime import datetime

from rollout.core.records.records import Case
from rollout.core.records.reviews import UNSEEN
from rollout.core.scope.permissions import Act, Caller
from rollout.services.engine.rollout_state import Standing
from rollout.store.database.session import Transaction
from rollout.store.records.exposures import Shown
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import DONE, Review, Reviews


def may_see_prediction(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    case: Case | str,
    at: datetime | None = None,
) -> bool:
    """Say whether what versions said of a case, and what follows from it, may be shown.

    Args:
        transaction: any.
        stood: how the rollout stands.
        caller: who asks. One without a right to review at the case's site, and without a claim
            on it, sees everything that their roles let them see.
        case: itself, or its key. One that is not known yet is kept from all reviewers.
        at: now; without it a case that nobody may judge in time any more counts as open.
    """
    key = case if isinstance(case, str) else case.key
    return key not in hidden_from(transaction, stood, caller, [key], at)


def hidden_from(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    keys: Collection[str],
    at: datetime | None = None,
) -> frozenset[str]:
    """Return those of some cases whose predictions may not be shown: `may_see_prediction` of many.

    Verdicts of others and outcomes of these cases are to be kept back with them.
    """
    if not caller.may_somewhere(Act.REVIEW, stood.rollout.name):
        return frozenset()
    case_ids = CallerKeys(transaction, stood.rollout).find(set(keys))
    newest = Newest(transaction, stood.rollout)
    cases, decisions = newest.cases(case_ids.values()), newest.decisions(case_ids.values())
    blind_reviews = _open(transaction, stood, case_ids.values(), at)
    hidden_keys = {key for key in keys if case_ids.get(key) not in cases}
    for key, case_id in case_ids.items():
        reviews = blind_reviews.get(case_id, [])
        has_claim = any(review.held(caller.name) for review in reviews)
        may_review = has_claim or (
            key not in hidden_keys and _reviews_at(caller, stood, cases[case_id].site)
        )
        has_decided = caller.name in decisions.get(case_id, {}) or any(
            review.state == DONE and review.reviewer == caller.name for review in reviews
        )
        if may_review and not has_decided and any(review.state != DONE for review in reviews):
            hidden_keys.add(key)
    return frozenset(hidden_keys)


def _open(
    transaction: Transaction, stood: Standing, numbers: Collection[int], at: datetime | None
) -> dict[int, list[Review]]:
    """Return by case the unseen seats that are asked for, and those that are judged."""
    reviews_by_case: dict[int, list[Review]] = {}
    for review in Reviews(transaction, stood.rollout).of_cases(numbers):
        is_asked = review.asked(at or review.opened_at)
        if review.kind in UNSEEN and (is_asked or review.state == DONE):
            reviews_by_case.setdefault(review.case_id, []).append(review)
    return reviews_by_case


def _reviews_at(caller: Caller, stood: Standing, site: str) -> bool:
    return caller.may(Act.REVIEW, stood.rollout.name, site)


def record_shown(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    keys: Iterable[str],
    *,
    what: str,
    page: str,
    at: datetime,
) -> None:
    """Note what is about to be shown; commit before the answer leaves.

    Machines judge nothing, so nothing is noted for them.

    Args:
        transaction: one that writes.
        stood: how the rollout stands.
        caller: who is shown it.
        keys: of the cases.
        what: `prediction`, `verdicts` or `case`.
        page: from where, as `case`, `divergences` or `report`.
        at: now.
    """
    case_ids = CallerKeys(transaction, stood.rollout).find(set(keys))
    exposure_entries = [(case_id, what) for case_id in case_ids.values()]
    note(transaction, stood, caller, exposure_entries, page=page, at=at)


def note(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    entries: Collection[tuple[int, str]],
    *,
    page: str,
    at: datetime,
) -> None:
    """Note entries by the cases' numbers; of the same again the first is what counts."""
    if caller.machine or not entries:
        return
    exposures = Shown(transaction, stood.rollout)
    known_exposures = exposures.of(caller.name, {case_id for case_id, _ in entries})
    new_entries = [
        (n, content) for n, content in entries if (content, page) not in known_exposures.get(n, ())
    ]
    exposures.add(new_entries, reviewer=caller.name, page=page, at=at)
