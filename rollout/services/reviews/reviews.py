"""The work of a reviewer: take the next case, judge it, give it back, look what the model said.

Whatever is shown is noted first, in the transaction that gives the case out. Nothing that a
reviewer gets before the verdict is stored follows from what a model said, save the proposals of
assisted reviews.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rollout import faults
from rollout.core.records.reviews import PREDICTION, REVEAL_PAGE, NotRevealed
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.records.review_tasks import (
    answered_elsewhere,
    ask_adjudication,
    open_reviews,
    seed,
)
from rollout.services.reviews.decisions import (
    Said,
    Verdict,
    check_person,
    decide,
    own_review,
    unknown_review,
    was_given,
)
from rollout.services.reviews.exposure import hidden_from, may_see_prediction, note, record_shown
from rollout.services.reviews.review_queue import (
    KINDS,
    Answer,
    Desk,
    Queue,
    answers_of,
    desk,
    queue_of,
    sites_of,
)
from rollout.store.database.session import Database
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import DONE, Reviews

__all__ = [
    "Late",
    "Said",
    "Verdict",
    "answered_elsewhere",
    "ask_adjudication",
    "claim",
    "decide",
    "hidden_from",
    "may_see_prediction",
    "mine",
    "open_reviews",
    "overdue",
    "reassign",
    "record_shown",
    "release",
    "reveal",
    "seed",
]

CLAIM = timedelta(minutes=10)
"""How long a case is somebody's who took it."""

MOST_AHEAD = 5
"""How many cases one person holds at once: the one on the page, and those loaded ahead."""


@dataclass(frozen=True, slots=True)
class Late:
    """A seat whose verdict is late or missing, for operators."""

    review: int
    case: str
    site: str
    kind: Queue
    due_at: datetime
    reviewer: str | None


def claim(
    database: Database,
    caller: Caller,
    stood: Standing,
    at: datetime,
    *,
    kind: Queue | None = None,
    hold: int = 1,
) -> Desk:
    """Give a reviewer cases until they hold `hold`, and return what they hold.

    Asking again is safe: what they hold already counts.

    Args:
        database: where the rollout is.
        caller: a person with a right to review.
        stood: how the rollout stands.
        at: now.
        kind: the queue; None for blind and assisted ones together, as they are due.
        hold: how many, the one on the page included; at most `MOST_AHEAD`.

    Raises:
        NotAllowed: they review nowhere in the rollout.
        MachineKey: it is a machine; people judge.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    check_person(caller)
    kinds = (*KINDS["blind"], *KINDS["assisted"]) if kind is None else KINDS[kind]
    sites = sites_of(caller, Act.REVIEW, stood)
    with database.writing() as transaction:
        review_store = Reviews(transaction, stood.rollout)
        review_store.take_turns(caller.name)
        claimed_count = len(review_store.held(caller.name, at, kinds, sites))
        for _ in range(claimed_count, min(hold, MOST_AHEAD)):
            if review_store.claim(caller.name, at, kinds, sites, at + CLAIM) is None:
                break
        faults.point("review.claimed")
        return desk(transaction, stood, caller, at)


def mine(database: Database, caller: Caller, stood: Standing, at: datetime) -> Desk:
    """Return what a reviewer holds, and how many cases wait for them.

    Raises:
        NotAllowed: they review nowhere in the rollout.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    with database.writing() as transaction:
        return desk(transaction, stood, caller, at)


def release(database: Database, caller: Caller, stood: Standing, number: int) -> None:
    """Give a case back unjudged; one that was given back or ran out stays so.

    Raises:
        UnknownReview: they never had a review of that number.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    with database.writing() as transaction:
        review_store = Reviews(transaction, stood.rollout)
        review = review_store.find(number, hold=True)
        if review is not None and review.held(caller.name):
            review_store.release(review)
        elif review is None or not was_given(transaction, stood, caller, review):
            raise unknown_review(number)


def reveal(
    database: Database, caller: Caller, stood: Standing, number: int, at: datetime
) -> tuple[Answer, ...]:
    """Return what each version said of a case that the caller has judged; it is noted first.

    Raises:
        UnknownReview: they have no review of that number.
        ReviewGone: it ran out, and somebody else has it.
        NotRevealed: the policy shows it to nobody, or they have given no verdict yet.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    with database.writing() as transaction:
        review = own_review(transaction, stood, caller, number)
        if stood.policy.reveal != "after":
            raise NotRevealed("this policy shows reviewers nothing of the model: `reveal: never`")
        if review.state != DONE:
            raise NotRevealed("give your verdict first; then you may see what the model said")
        exposure_entries = [(review.case_id, PREDICTION)]
        note(transaction, stood, caller, exposure_entries, page=REVEAL_PAGE, at=at)
        faults.point("review.shown")
        predictions = Newest(transaction, stood.rollout).predictions([review.case_id])
        return tuple(answers_of(predictions.get(review.case_id, {})))


def reassign(database: Database, caller: Caller, stood: Standing, reviewer: str) -> int:
    """Give back at once what somebody holds who is away, and return how many cases that is.

    Without it their claims run out by themselves.

    Raises:
        NotAllowed: the caller operates nowhere in the rollout.
    """
    require(caller, Act.OPERATE, stood.rollout.name)
    sites = sites_of(caller, Act.OPERATE, stood)
    with database.writing() as transaction:
        return Reviews(transaction, stood.rollout).release_all(reviewer, sites)


def overdue(
    database: Database, caller: Caller, stood: Standing, at: datetime, *, limit: int = 100
) -> Sequence[Late]:
    """Return the seats without a verdict that run out in the last quarter of `grace`, or did.

    Those that ran out over a week ago are left out. Known cases stand among the blind ones.

    Raises:
        NotAllowed: the caller operates nowhere in the rollout.
    """
    require(caller, Act.OPERATE, stood.rollout.name)
    sites = sites_of(caller, Act.OPERATE, stood)
    period = {"since": at - timedelta(days=7), "until": at + stood.policy.evidence.grace / 4}
    with database.reading() as transaction:
        overdue_reviews = Reviews(transaction, stood.rollout).overdue(
            **period, sites=sites, limit=limit
        )
        cases = Newest(transaction, stood.rollout).cases(
            {review.case_id for review in overdue_reviews}
        )
    return [
        Late(
            review=review.id,
            case=cases[review.case_id].key,
            site=review.site,
            kind=queue_of(review.kind),
            due_at=review.due_at,
            reviewer=None if review.free(at) else review.reviewer,
        )
        for review in overdue_reviews
        if review.case_id in cases and review.due_at is not None
    ]
