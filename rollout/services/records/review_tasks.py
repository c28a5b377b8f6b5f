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
    known = {case.key: case for case in sorted(cases, key=lambda case: case.revision)}
    numbers = CallerKeys(transaction, stood.rollout).find(known)
    store = Reviews(transaction, stood.rollout)
    seated = {r.case_id: r for r in store.of_cases(numbers.values()) if r.kind in DRAWN}
    for key, number in numbers.items():
        if number in seated and seated[number].site != known[key].site:
            store.move(number, known[key].site)
    fresh = {number: known[key] for key, number in numbers.items() if number not in seated}
    store.open(_opened(transaction, stood, dict(sorted(fresh.items())), at))
    answered_elsewhere(transaction, stood, fresh.keys(), at)


def _opened(
    transaction: Transaction, stood: Standing, cases: Mapping[int, Case], at: datetime
) -> Iterator[NewReview]:
    """Yield the seats of new cases, by their numbers."""
    policy, salt = stood.policy, stood.rollout.salt
    acted = _acting(transaction, stood, cases)
    said = Newest(transaction, stood.rollout).predictions(acted)
    for number, case in cases.items():
        version, rung = acted.get(number, (None, 0))
        answers = said.get(number, {})
        drawn, second = draws_of(policy, salt, case)
        sure = version is None or _sure(stood, answers.get(version))
        asked = seats(policy, rung, drawn=drawn, second=second, sure=sure)
        if not asked and {answer.decider for answer in answers.values()} - {None} == {"human"}:
            asked = (Seat(BLIND),)  # all who asked were told that a person decides
        for seat in asked:
            proposed = version if seat.kind == ASSISTED else None
            yield _review(stood, number, case, seat, at, version=proposed)


def _acting(
    transaction: Transaction, stood: Standing, cases: Mapping[int, Case]
) -> Mapping[int, tuple[str, int]]:
    """Return of the cases above shadow which version acted there, and on which rung."""
    scopes = _scopes(transaction, stood, [case.occurred_at for case in cases.values()])
    found = {
        number: acting(
            scopes[case.occurred_at], stood.policy, Cell(case.site, case.window), case.occurred_at
        )
        for number, case in cases.items()
    }
    return {number: here for number, here in found.items() if here is not None}


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
    settled = seat.kind == ADJUDICATE  # for reports: it is never too late
    return NewReview(
        case_id=number,
        kind=seat.kind,
        seat=seat.number,
        site=case.site,
        opened_at=at,
        turn=turn(stood.rollout.salt, case.key),
        due_at=None if settled else due_at(stood.policy, case.occurred_at, at),
        answer_by=None if settled else answer_by(stood.policy, case.occurred_at),
        version=version,
        known=known,
    )


def _sure(stood: Standing, answer: Prediction | None) -> bool:
    floor = stood.policy.evidence.confidence_floor
    if floor is None:
        return True
    return answer is not None and answer.confidence is not None and answer.confidence >= floor


def _scopes(
    transaction: Transaction, stood: Standing, instants: Iterable[datetime]
) -> Mapping[datetime, Scope]:
    """Return the scope at each instant: now's for those after the ledger's last row."""
    last = stood.scope.at
    wanted = sorted(set(instants))
    found = {at: stood.scope for at in wanted if last is None or at >= last}
    late = [at for at in wanted if at not in found]
    if not late:
        return found
    ledger = Ledger(transaction, stood.rollout)
    scope = ledger.scope_at(late[0])
    rest = list(takewhile(lambda e: e.at <= late[-1], ledger.events(after=scope.revision)))
    for at in late:
        while rest and rest[0].at <= at:
            scope = evolve(scope, rest.pop(0))
        found[at] = scope
    return found


def answered_elsewhere(
    transaction: Transaction, stood: Standing, case_ids: Collection[int], at: datetime
) -> None:
    """Ask nobody here about cases that people judged elsewhere, once these verdicts suffice.

    A case that somebody has begun on here stays: what is judged in a seat comes first.
    """
    store = Reviews(transaction, stood.rollout)
    decided = Newest(transaction, stood.rollout).decisions(case_ids)
    if not decided:
        return
    begun = {r.case_id for r in store.of_cases(decided) if r.kind in DRAWN and r.reviewer}
    outside = {
        number: [said for said in decided[number].values() if said.review is None]
        for number in sorted(decided.keys() - begun)
    }
    enough = stood.policy.evidence.verdicts
    seen = [number for number, said in outside.items() if said]
    settled = [
        number
        for number, said in outside.items()
        if sum(_counts(stood, one) for one in said) >= enough
    ]
    store.withdraw(seen, [ASSISTED], at=at)
    store.withdraw(settled, [BLIND], at=at)


def _counts(stood: Standing, said: Decision) -> bool:
    unseen = (BLIND, UNKNOWN) if stood.policy.evidence.outside_blind else (BLIND,)
    return said.exposure in unseen


def adjudicate_if_split(
    transaction: Transaction, stood: Standing, case_id: int, at: datetime
) -> None:
    """Open an adjudication once all who were asked blind have judged, and two of them differ."""
    store = Reviews(transaction, stood.rollout)
    asked = [review for review in store.of_cases([case_id]) if review.kind == BLIND]
    if any(review.asked(at) for review in asked):
        return
    judged = {review.id for review in asked if review.state == DONE}
    newest = Newest(transaction, stood.rollout)
    said = newest.decisions([case_id]).get(case_id, {})
    if differ([d.answers for d in said.values() if d.review in judged]):
        case = newest.cases([case_id])[case_id]
        store.open([_review(stood, case_id, case, Seat(ADJUDICATE), at)])


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
        number, case = stored_case(transaction, stood, key)
        require(caller, Act.OPERATE, stood.rollout.name, (case.site,))
        _check_closed(transaction, stood, number, key, at)
        said = Newest(transaction, stood.rollout).predictions([number]).get(number, {})
        if version is not None and version not in said:
            raise UnknownVersion(f"{version} said nothing of {key}; there is {', '.join(said)}")
        asked = _review(stood, number, case, Seat(ADJUDICATE), at, version=version)
        Reviews(transaction, stood.rollout).open([asked])


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
        number, case = stored_case(transaction, stood, key)
        _check_closed(transaction, stood, number, key, at)
        told = Shown(transaction, stood.rollout)
        _check_untold(told.told(ANYBODY), case)
        told.add([(number, VERDICTS)], reviewer=caller.name, page=SEED_PAGE, at=at)
        Reviews(transaction, stood.rollout).open(
            _review(stood, number, case, Seat(SEEDED, place), at, known=dict(answers))
            for place in range(1, people + 1)
        )


def stored_case(transaction: Transaction, stood: Standing, key: str) -> tuple[int, Case]:
    """Return a case with its number.

    Raises:
        UnknownCase: there is none of that key.
    """
    number = CallerKeys(transaction, stood.rollout).find([key]).get(key)
    known = {} if number is None else Newest(transaction, stood.rollout).cases([number])
    if number is None or number not in known:
        raise UnknownCase(f"no case {key}; send it to `records` first")
    return number, known[number]


def _check_closed(
    transaction: Transaction, stood: Standing, number: int, key: str, at: datetime
) -> None:
    there = Reviews(transaction, stood.rollout).of_cases([number])
    if any(review.kind == BLIND and review.asked(at) for review in there):
        raise StillOpen(f"people are still to judge {key} blind; ask again once they have")


def _check_untold(told: datetime | None, case: Case) -> None:
    if told is not None and case.occurred_at < told:
        raise StillOpen(
            f"a report up to {told.isoformat()} went to a channel whose readers are not known, so "
            f"anybody may have read of {case.key}: take a case that occurred later, and name who "
            "reads the channel in its `readers`"
        )
