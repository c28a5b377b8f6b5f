"""What somebody judged lately, as they said it: to see it again, and to say it otherwise.

Known cases stand among the others and look the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.records.records import Case, Decision
from rollout.core.records.reviews import BLIND, REVIEW_PAGE, SEEDED, TELLING
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.reviews.decisions import unknown_review
from rollout.services.reviews.review_queue import Answer, Answers, Queue, answers_of, queue_of
from rollout.store.database.session import Database, Transaction
from rollout.store.records.exposures import Shown
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import Review, SeatLists
from rollout.store.tables.columns import instant_of

LATELY: Final = 12
"""How many verdicts are looked back upon."""


@dataclass(frozen=True, slots=True)
class OwnVerdict:
    """A verdict of the caller's, as it stands.

    Attributes:
        review: number of the review.
        kind: of the queue that it stood in.
        case: as it was sent.
        answers: by lever; none of them where they were unsure.
        note: what they wrote beside it.
        revision: which of their verdicts on the case it is, from 1.
        started_at: when they began on it, as they said.
        at: when they gave it.
        proposal: of an assisted review what the acting version said.
        stands: they were shown what the model said, so it can't be changed any more.
    """

    review: int
    kind: Queue
    case: Case
    answers: Answers
    note: str | None
    revision: int
    started_at: datetime | None
    at: datetime
    proposal: Answer | None
    stands: bool


@dataclass(frozen=True, slots=True)
class Lately:
    """How many cases somebody judged since an instant, and the last ones, the newest first."""

    count: int
    last: tuple[OwnVerdict, ...]


def judged_lately(
    database: Database, caller: Caller, stood: Standing, since: datetime, *, limit: int = LATELY
) -> Lately:
    """Return what the caller judged.

    Args:
        database: where the rollout is.
        caller: a person with a right to review.
        stood: how the rollout stands.
        since: from when on verdicts are counted.
        limit: how many of the last are told, however old they are.

    Raises:
        NotAllowed: they review nowhere in the rollout.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    with database.reading() as transaction:
        review_lists = SeatLists(transaction, stood.rollout)
        closed_reviews = review_lists.last(caller.name, limit)
        count = review_lists.judged(caller.name, since)
        return Lately(count, tuple(_verdicts(transaction, stood, caller, closed_reviews)))


def own_verdict(database: Database, caller: Caller, stood: Standing, number: int) -> OwnVerdict:
    """Return one verdict of the caller's.

    Raises:
        NotAllowed: they review nowhere in the rollout.
        UnknownReview: they judged no review of that number.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    with database.reading() as transaction:
        closed_review = SeatLists(transaction, stood.rollout).one(caller.name, number)
        own_decisions = (
            [] if closed_review is None else _verdicts(transaction, stood, caller, [closed_review])
        )
        if not own_decisions:
            raise unknown_review(number)
        return own_decisions[0]


def _verdicts(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    closed: Sequence[tuple[Review, datetime]],
) -> list[OwnVerdict]:
    case_ids = [review.case_id for review, _ in closed]
    newest = Newest(transaction, stood.rollout)
    cases, decisions = newest.cases(case_ids), newest.decisions(case_ids)
    proposals = _proposals(newest, [review for review, _ in closed])
    fixed_case_ids = _fixed(transaction, stood, caller, cases)
    own_decisions = []
    for review, at in closed:
        case_id = review.case_id
        decision = _said(review, decisions.get(case_id, {}).get(caller.name))
        if case_id in cases and decision is not None:
            own_decisions.append(
                OwnVerdict(
                    review=review.id,
                    kind=queue_of(review.kind),
                    case=cases[case_id],
                    answers=decision.answers,
                    note=decision.note,
                    revision=decision.revision,
                    started_at=decision.started_at,
                    at=at,
                    proposal=proposals.get(case_id),
                    stands=case_id in fixed_case_ids,
                )
            )
    return own_decisions


def _said(review: Review, decided: Decision | None) -> Decision | None:
    """Return what was said in a seat; of a known case it is kept with the seat."""
    if review.kind != SEEDED or review.said is None:
        return decided
    review_answer = review.said
    return Decision(
        key="",
        reviewer=review.reviewer or "",
        answers=review_answer["answers"],
        exposure=BLIND,
        note=review_answer["note"],
        revision=review_answer["revision"],
        started_at=None
        if review_answer["started_at"] is None
        else instant_of(review_answer["started_at"]),
    )


def _proposals(newest: Newest, judged: Sequence[Review]) -> Mapping[int, Answer]:
    """Return of assisted reviews what was shown with them: theirs alone, by case."""
    assisted = {
        review.case_id: review.version
        for review in judged
        if queue_of(review.kind) == "assisted" and review.version is not None
    }
    predictions = newest.predictions(assisted.keys())
    return {
        case_id: answer
        for case_id, version in assisted.items()
        for answer in answers_of(predictions.get(case_id, {}))
        if answer.version == version
    }


def _fixed(
    transaction: Transaction, stood: Standing, caller: Caller, cases: Mapping[int, Case]
) -> Collection[int]:
    """Return the cases of which the caller has been told too much to judge them otherwise."""
    exposures = Shown(transaction, stood.rollout)
    case_exposures, figures_until = (
        exposures.of(caller.name, cases.keys()),
        exposures.told(caller.name),
    )
    return {
        case_id
        for case_id, case in cases.items()
        if (figures_until is not None and case.occurred_at < figures_until)
        or any(
            content in TELLING and page != REVIEW_PAGE
            for content, page in case_exposures.get(case_id, ())
        )
    }
