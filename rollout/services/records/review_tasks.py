"""Who is asked about a case: seats are opened when the case is known, by its draws."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import takewhile

from rollout.core.calendar.sites import Cell
from rollout.core.errors import UnknownVersion
from rollout.core.records.records import Case, Decision, Prediction
from rollout.core.records.reviews import (
    ADJUDICATE,
    ASSISTED,
    BLIND,
    SEEDED,
    UNKNOWN,
    VERDICTS,
    Seat,
    StillOpen,
    UnknownCase,
    answer_by,
    check_verdict,
    differ,
    draws_of,
    due_at,
    seats,
    turn,
)
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.projection import evolve
from rollout.core.scope.scope import Scope, acting
from rollout.services.engine.rollout_state import Standing
from rollout.store.database.session import Database, Transaction
from rollout.store.ledger.ledger import Ledger
from rollout.store.records.exposures import ANYBODY, Shown
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.reviews.reviews import DONE, NewReview, Reviews

DRAWN = (BLIND, ASSISTED)
"""Kinds that follow from the draws; the others are asked for by people."""

SEED_PAGE = "gold-case"


def open_reviews(
    transaction: Transaction, stood: Standing, cases: Iterable[Case], at: datetime
) -> None:
    """Open the seats of cases that are stored, with what their versions said, in `transaction`.

    Asking again changes nothing. Cases that have seats keep them; where a case was corrected to
    another site, its open seats go there.

    Args:
        transaction: the one in which the cases are stored.
        stood: how the rollout stands.
        cases: newly stored ones, and those about which somebody asked who decides.
        at: when they were received.
    """
    cases_by_key = {case.key: case for case in sorted(cases, key=lambda case: case.revision)}
    case_ids = CallerKeys(transaction, stood.rollout).find(cases_by_key)
    review_store = Reviews(transaction, stood.rollout)
    existing_reviews = {
        review.case_id: review
        for review in review_store.of_cases(case_ids.values())
        if review.kind in DRAWN
    }
    for key, case_id in case_ids.items():
        if case_id in existing_reviews and existing_reviews[case_id].site != cases_by_key[key].site:
            review_store.move(case_id, cases_by_key[key].site)
    new_cases = {
        case_id: cases_by_key[key]
        for key, case_id in case_ids.items()
        if case_id not in existing_reviews
    }
    review_store.open(_opened(transaction, stood, dict(sorted(new_cases.items())), at))
    answered_elsewhere(transaction, stood, new_cases.keys(), at)


def _opened(
    transaction: Transaction, stood: Standing, cases: Mapping[int, Case], at: datetime
) -> Iterator[NewReview]:
    """Yield the seats of new cases, by their numbers."""
    policy, salt = stood.policy, stood.rollout.salt
    acting_versions = _acting(transaction, stood, cases)
    predictions = Newest(transaction, stood.rollout).predictions(acting_versions)
    for case_id, case in cases.items():
        version, stage_level = acting_versions.get(case_id, (None, 0))
        case_predictions = predictions.get(case_id, {})
        sampling_value, second_value = draws_of(policy, salt, case)
        is_confident = version is None or _sure(stood, case_predictions.get(version))
        review_tasks = seats(
            policy, stage_level, drawn=sampling_value, second=second_value, sure=is_confident
        )
        if not review_tasks and {prediction.decider for prediction in case_predictions.values()} - {
            None
        } == {"human"}:
            review_tasks = (Seat(BLIND),)  # all who asked were told that a person decides
        for review_task in review_tasks:
            shown_version = version if review_task.kind == ASSISTED else None
            yield _review(stood, case_id, case, review_task, at, version=shown_version)


def _acting(
    transaction: Transaction, stood: Standing, cases: Mapping[int, Case]
) -> Mapping[int, tuple[str, int]]:
    """Return of the cases above shadow which version acted there, and on which rung."""
    scopes = _scopes(transaction, stood, [case.occurred_at for case in cases.values()])
    acting_grants = {
        case_id: acting(
            scopes[case.occurred_at], stood.policy, Cell(case.site, case.window), case.occurred_at
        )
        for case_id, case in cases.items()
    }
    return {
        case_id: acting_grant
        for case_id, acting_grant in acting_grants.items()
        if acting_grant is not None
    }


def _review(
    stood: Standing,
    number: int,
    case: Case,
    seat: Seat,
    at: datetime,
    *,
    version: str | None = None,
    known: Mapping[str, str] | None = None,
) -> NewReview:
    """Return a new seat. All that tells when it is asked for follows from the case's times."""
    is_adjudication = seat.kind == ADJUDICATE  # for reports: it is never too late
    return NewReview(
        case_id=number,
        kind=seat.kind,
        seat=seat.number,
        site=case.site,
        opened_at=at,
        turn=turn(stood.rollout.salt, case.key),
        due_at=None if is_adjudication else due_at(stood.policy, case.occurred_at, at),
        answer_by=None if is_adjudication else answer_by(stood.policy, case.occurred_at),
        version=version,
        known=known,
    )


def _sure(stood: Standing, answer: Prediction | None) -> bool:
    confidence_floor = stood.policy.evidence.confidence_floor
    if confidence_floor is None:
        return True
    return (
        answer is not None
        and answer.confidence is not None
        and answer.confidence >= confidence_floor
    )


def _scopes(
    transaction: Transaction, stood: Standing, instants: Iterable[datetime]
) -> Mapping[datetime, Scope]:
    """Return the scope at each instant: now's for those after the ledger's last row."""
    last_event_at = stood.scope.at
    sorted_instants = sorted(set(instants))
    scopes = {
        at: stood.scope for at in sorted_instants if last_event_at is None or at >= last_event_at
    }
    past_instants = [at for at in sorted_instants if at not in scopes]
    if not past_instants:
        return scopes
    ledger = Ledger(transaction, stood.rollout)
    scope = ledger.scope_at(past_instants[0])
    later_events = list(
        takewhile(lambda event: event.at <= past_instants[-1], ledger.events(after=scope.revision))
    )
    for at in past_instants:
        while later_events and later_events[0].at <= at:
            scope = evolve(scope, later_events.pop(0))
        scopes[at] = scope
    return scopes


def answered_elsewhere(
    transaction: Transaction, stood: Standing, case_ids: Collection[int], at: datetime
) -> None:
    """Ask nobody here about cases that people judged elsewhere, once these verdicts suffice.

    A case that somebody has begun on here stays: what is judged in a seat comes first.
    """
    review_store = Reviews(transaction, stood.rollout)
    decisions = Newest(transaction, stood.rollout).decisions(case_ids)
    if not decisions:
        return
    started_case_ids = {
        review.case_id
        for review in review_store.of_cases(decisions)
        if review.kind in DRAWN and review.reviewer
    }
    outside_decisions = {
        case_id: [
            case_decisions
            for case_decisions in decisions[case_id].values()
            if case_decisions.review is None
        ]
        for case_id in sorted(decisions.keys() - started_case_ids)
    }
    required_decisions = stood.policy.evidence.verdicts
    answered_case_ids = [
        case_id for case_id, case_decisions in outside_decisions.items() if case_decisions
    ]
    settled_case_ids = [
        case_id
        for case_id, case_decisions in outside_decisions.items()
        if sum(_counts(stood, decision) for decision in case_decisions) >= required_decisions
    ]
    review_store.withdraw(answered_case_ids, [ASSISTED], at=at)
    review_store.withdraw(settled_case_ids, [BLIND], at=at)


def _counts(stood: Standing, said: Decision) -> bool:
    blind_exposures = (BLIND, UNKNOWN) if stood.policy.evidence.outside_blind else (BLIND,)
    return said.exposure in blind_exposures


def adjudicate_if_split(
    transaction: Transaction, stood: Standing, case_id: int, at: datetime
) -> None:
    """Open an adjudication once all who were asked blind have judged, and two of them differ."""
    review_store = Reviews(transaction, stood.rollout)
    blind_reviews = [review for review in review_store.of_cases([case_id]) if review.kind == BLIND]
    if any(review.asked(at) for review in blind_reviews):
        return
    done_review_ids = {review.id for review in blind_reviews if review.state == DONE}
    newest = Newest(transaction, stood.rollout)
    decisions = newest.decisions([case_id]).get(case_id, {})
    if differ(
        [decision.answers for decision in decisions.values() if decision.review in done_review_ids]
    ):
        case = newest.cases([case_id])[case_id]
        review_store.open([_review(stood, case_id, case, Seat(ADJUDICATE), at)])


def ask_adjudication(
    database: Database, caller: Caller, stood: Standing, key: str, version: str | None, at: datetime
) -> None:
    """Ask somebody who has not judged a case to settle it: for reports and training alone.

    Args:
        database: where the rollout is.
        caller: an operator of the case's site.
        stood: how the rollout stands.
        key: the case.
        version: whose answer is set beside those of people; None for none.
        at: now.

    Raises:
        NotAllowed: they may not.
        UnknownCase: there is none of that key.
        UnknownVersion: it said nothing of the case.
        StillOpen: people are still to judge it blind.
    """
    require(caller, Act.OPERATE, stood.rollout.name)
    with database.writing() as transaction:
        case_id, case = stored_case(transaction, stood, key)
        require(caller, Act.OPERATE, stood.rollout.name, (case.site,))
        _check_closed(transaction, stood, case_id, key, at)
        predictions = Newest(transaction, stood.rollout).predictions([case_id]).get(case_id, {})
        if version is not None and version not in predictions:
            raise UnknownVersion(
                f"{version} said nothing of {key}; there is {', '.join(predictions)}"
            )
        review = _review(stood, case_id, case, Seat(ADJUDICATE), at, version=version)
        Reviews(transaction, stood.rollout).open([review])


def seed(
    database: Database,
    caller: Caller,
    stood: Standing,
    key: str,
    answers: Mapping[str, str],
    *,
    people: int,
    at: datetime,
) -> None:
    """Have several people judge a case whose answer is known, as if it were any other.

    Their verdicts are kept with the review and are no records: they are never evidence.

    Args:
        database: where the rollout is.
        caller: an admin; they know the answer, so they are not given the case.
        stood: how the rollout stands.
        key: a stored case.
        answers: what is right.
        people: how many are asked.
        at: now.

    Raises:
        NotAllowed: they may not.
        UnknownCase: there is none of that key.
        BadVerdict: a lever has no such answer.
        StillOpen: people are still to judge it, so that it may be evidence; or a report went to
            people whom nobody named, and told them of it.
    """
    require(caller, Act.ADMINISTER, stood.rollout.name)
    check_verdict(stood.policy, answers, unsure=False)
    with database.writing() as transaction:
        case_id, case = stored_case(transaction, stood, key)
        _check_closed(transaction, stood, case_id, key, at)
        exposures = Shown(transaction, stood.rollout)
        _check_untold(exposures.told(ANYBODY), case)
        exposures.add([(case_id, VERDICTS)], reviewer=caller.name, page=SEED_PAGE, at=at)
        Reviews(transaction, stood.rollout).open(
            _review(stood, case_id, case, Seat(SEEDED, seat_number), at, known=dict(answers))
            for seat_number in range(1, people + 1)
        )


def stored_case(transaction: Transaction, stood: Standing, key: str) -> tuple[int, Case]:
    """Return a case with its number.

    Raises:
        UnknownCase: there is none of that key.
    """
    case_id = CallerKeys(transaction, stood.rollout).find([key]).get(key)
    cases = {} if case_id is None else Newest(transaction, stood.rollout).cases([case_id])
    if case_id is None or case_id not in cases:
        raise UnknownCase(f"no case {key}; send it to `records` first")
    return case_id, cases[case_id]


def _check_closed(
    transaction: Transaction, stood: Standing, number: int, key: str, at: datetime
) -> None:
    reviews = Reviews(transaction, stood.rollout).of_cases([number])
    if any(review.kind == BLIND and review.asked(at) for review in reviews):
        raise StillOpen(f"people are still to judge {key} blind; ask again once they have")


def _check_untold(told: datetime | None, case: Case) -> None:
    if told is not None and case.occurred_at < told:
        raise StillOpen(
            f"a report up to {told.isoformat()} went to a channel whose readers are not known, so "
            f"anybody may have read of {case.key}: take a case that occurred later, and name who "
            "reads the channel in its `readers`"
        )
