"""What lies before a reviewer: the cases they hold, with all that they may see of each."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from rollout import faults
from rollout.core.policy.levers import Lever
from rollout.core.records.records import Case, Prediction
from rollout.core.records.reviews import (
    ADJUDICATE,
    ASSISTED,
    BLIND,
    CASE,
    PREDICTION,
    REVIEW_PAGE,
    UNSEEN,
    VERDICTS,
)
from rollout.core.scope.permissions import MAY, Act, Caller, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.reviews.exposure import hidden_from, note
from rollout.store.database.session import Database, Transaction
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import DONE, Review, Reviews, SeatLists
from rollout.store.tables.columns import plain

Queue = Literal["blind", "assisted", "adjudicate"]
KINDS: Final[Mapping[Queue, Collection[str]]] = {
    "blind": UNSEEN,
    "assisted": (ASSISTED,),
    "adjudicate": (ADJUDICATE,),
}
"""The queues as reviewers know them; a known case stands in the blind one like any other."""

Answers = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version said."""

    version: str
    answers: Answers
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Task:
    """A case that a reviewer has.

    Attributes:
        review: number of the review.
        kind: `blind`, `assisted` or `adjudicate`.
        case: as it was sent.
        answer_by: until when an answer is of use to whoever acts.
        claimed_until: from then on somebody else may be given it.
        proposal: of an assisted review what the acting version said, None if nothing yet.
        verdicts: of an adjudication the answers that were given, without names, each once.
    """

    review: int
    kind: Queue
    case: Case
    answer_by: datetime | None
    claimed_until: datetime
    proposal: Answer | None = None
    verdicts: tuple[Answers, ...] = ()


@dataclass(frozen=True, slots=True)
class Desk:
    """What is asked, the cases that somebody holds, how many more wait for them by queue."""

    levers: tuple[Lever, ...]
    tasks: tuple[Task, ...]
    waiting: Mapping[Queue, int]


def sites_of(caller: Caller, act: Act, stood: Standing) -> frozenset[str] | None:
    """Return the sites at which somebody may do something; None for everywhere."""
    rollout_name = stood.rollout.name
    sites = {
        role_assignment.site
        for role_assignment in caller.rights
        if role_assignment.role in MAY[act] and role_assignment.rollout in {"", rollout_name}
    }
    return None if "" in sites else frozenset(sites)


def queue_of(kind: str) -> Queue:
    """Return the queue that a kind of review stands in."""
    if kind == ASSISTED:
        return "assisted"
    return "adjudicate" if kind == ADJUDICATE else "blind"


def answers_of(said: Mapping[str, Prediction]) -> Iterator[Answer]:
    """Yield what versions said, by their names."""
    for version in sorted(said):
        yield Answer(version, said[version].answers, said[version].confidence)


def desk(transaction: Transaction, stood: Standing, caller: Caller, at: datetime) -> Desk:
    """Return what somebody holds, and note what of it they have not been shown before."""
    review_store = Reviews(transaction, stood.rollout)
    sites = sites_of(caller, Act.REVIEW, stood)
    claimed_reviews = review_store.held(
        caller.name, at, [kind for kinds in KINDS.values() for kind in kinds], sites
    )
    tasks = _tasks(transaction, stood, claimed_reviews)
    exposure_entries = [
        (review.case_id, content)
        for review in claimed_reviews
        for content in _shows(review, tasks[review.case_id])
    ]
    note(transaction, stood, caller, exposure_entries, page=REVIEW_PAGE, at=at)
    faults.point("review.shown")
    waiting_counts = {
        queue: review_store.waiting(caller.name, at, kinds, sites) for queue, kinds in KINDS.items()
    }
    return Desk(stood.policy.levers, tuple(tasks.values()), waiting_counts)


def _tasks(transaction: Transaction, stood: Standing, held: Iterable[Review]) -> Mapping[int, Task]:
    """Return tasks by their cases' numbers, in the order of the queue."""
    by_case = {review.case_id: review for review in held}
    newest = Newest(transaction, stood.rollout)
    cases = newest.cases(by_case)
    visible_case_ids = {n for n, review in by_case.items() if review.kind not in UNSEEN}
    predictions = newest.predictions(visible_case_ids)
    adjudicated_ids = {n for n in visible_case_ids if by_case[n].kind == ADJUDICATE}
    decisions = _verdicts(transaction, stood, adjudicated_ids)
    tasks = {}
    for case_id, review in by_case.items():
        answer = predictions.get(case_id, {}).get(review.version or "")
        proposal = None if answer is None else next(answers_of({answer.version: answer}))
        decision_answers = decisions.get(case_id, [])
        if review.kind == ADJUDICATE and proposal is not None:
            decision_answers, proposal = [*decision_answers, proposal.answers], None
        assert review.claimed_until is not None  # noqa: S101 - it is held
        tasks[case_id] = Task(
            review=review.id,
            kind=queue_of(review.kind),
            case=cases[case_id],
            answer_by=review.answer_by,
            claimed_until=review.claimed_until,
            proposal=proposal,
            verdicts=_each_once(decision_answers),
        )
    return tasks


def _verdicts(
    transaction: Transaction, stood: Standing, numbers: Collection[int]
) -> Mapping[int, list[Answers]]:
    """Return the blind verdicts on cases, those of their seats or those made elsewhere."""
    reviews = Reviews(transaction, stood.rollout).of_cases(numbers)
    done_review_ids = {
        review.id for review in reviews if review.kind == BLIND and review.state == DONE
    }
    decisions = Newest(transaction, stood.rollout).decisions(numbers)
    return {
        case_id: [
            decision.answers
            for decision in case_decisions.values()
            if decision.review is None or decision.review in done_review_ids
        ]
        for case_id, case_decisions in decisions.items()
    }


def _each_once(given: Iterable[Answers]) -> tuple[Answers, ...]:
    """Return answers each once, in an order that says nothing of who gave them."""
    return tuple(
        answers for _, answers in sorted({plain(dict(item)): item for item in given}.items())
    )


def _shows(review: Review, task: Task) -> Iterator[str]:
    """Yield what a task shows of its case."""
    yield CASE
    if task.proposal is not None or (task.verdicts and review.version is not None):
        yield PREDICTION
    if task.verdicts:
        yield VERDICTS


@dataclass(frozen=True, slots=True)
class Conflict:
    """A case that somebody is asked to settle; `taken`: somebody is at it now."""

    case: Case
    since: datetime
    taken: bool


def conflicts(
    database: Database, caller: Caller, stood: Standing, at: datetime, *, limit: int = 100
) -> tuple[Conflict, ...]:
    """Return the cases that wait to be settled at the caller's sites, the oldest first.

    Those that the caller may still judge blind are left out.

    Raises:
        NotAllowed: the caller operates nowhere in the rollout.
    """
    require(caller, Act.OPERATE, stood.rollout.name)
    with database.reading() as transaction:
        review_lists = SeatLists(transaction, stood.rollout)
        open_reviews = review_lists.to_settle(sites_of(caller, Act.OPERATE, stood), limit)
        cases = Newest(transaction, stood.rollout).cases({r.case_id for r in open_reviews})
        keys = [case.key for case in cases.values()]
        hidden_keys = hidden_from(transaction, stood, caller, keys, at)
    return tuple(
        Conflict(cases[review.case_id], review.opened_at, taken=not review.free(at))
        for review in open_reviews
        if review.case_id in cases and cases[review.case_id].key not in hidden_keys
    )


MOST = 20
"""Rollouts that are counted, by name."""
EVERY_KIND = tuple(kind for kinds in KINDS.values() for kind in kinds)


def review_counts(service: Service, caller: Caller, at: datetime) -> Mapping[str, int]:
    """Return the cases that somebody holds or could be given, by rollout; none are left out."""
    states = [cached_rollout.standing for cached_rollout in service.watch.everything()]
    reviewable_states = [
        state for state in states if caller.may_somewhere(Act.REVIEW, state.rollout.name)
    ][:MOST]
    if not reviewable_states:
        return {}
    with service.database.reading() as transaction:
        counts = {
            state.rollout.name: _waiting(transaction, caller, state, at)
            for state in reviewable_states
        }
    return {rollout_name: count for rollout_name, count in counts.items() if count}


def _waiting(transaction: Transaction, caller: Caller, stood: Standing, at: datetime) -> int:
    review_store, sites = Reviews(transaction, stood.rollout), sites_of(caller, Act.REVIEW, stood)
    claimed_count = len(review_store.held(caller.name, at, EVERY_KIND, sites))
    return claimed_count + sum(
        review_store.waiting(caller.name, at, kinds, sites) for kinds in KINDS.values()
    )
