"""Verdicts: what a reviewer sends about a case they hold, and how it is kept.

A verdict is kept with the exposure that follows from what the server showed, and queued to be
counted in the same transaction. One on a known case answers as any other, and is no record.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rollout import faults
from rollout.core.calendar.instants import micros
from rollout.core.errors import MachineKey
from rollout.core.records.records import Case, Decision
from rollout.core.records.reviews import (
    BLIND,
    CASE,
    PREDICTION,
    REVIEW_PAGE,
    SEEDED,
    TELLING,
    ReviewGone,
    UnknownReview,
    VerdictStands,
    check_begun,
    check_verdict,
    exposure,
)
from rollout.core.scope.permissions import Act, Caller, require
from rollout.services.engine.count_queue import queue
from rollout.services.engine.rollout_state import Standing
from rollout.services.records.review_tasks import adjudicate_if_split
from rollout.store.database.session import Database, Transaction
from rollout.store.records.exposures import FIGURES, Shown
from rollout.store.records.external_keys import CallerKeys
from rollout.store.records.recent_units import Newest
from rollout.store.records.records import Answer as Accepted
from rollout.store.records.records import Kept, Records
from rollout.store.records.records import Verdict as Judged
from rollout.store.reviews.reviews import WITHDRAWN, Review, Reviews
from rollout.store.tables.columns import instant_of

TOLD: Final = frozenset({(PREDICTION, FIGURES)})
"""Shown by figures that are of all cases up to some instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a reviewer sends. `claims` is the exposure they own up to; it only makes it worse."""

    answers: Mapping[str, str | None] = field(default_factory=dict)
    unsure: bool = False
    note: str | None = None
    started_at: datetime | None = None
    claims: str = BLIND
    supersedes: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A verdict as it is stored."""

    review: int
    case: str
    answers: Mapping[str, str | None]
    unsure: bool
    note: str | None
    revision: int
    at: datetime


def decide(
    database: Database, caller: Caller, stood: Standing, number: int, said: Said, at: datetime
) -> Verdict:
    """Store a reviewer's verdict, and queue its case to be counted.

    The same again answers the same. Something else is refused, unless it says which revision it
    supersedes and the model's answer has not been shown to them meanwhile.

    Raises:
        UnknownReview: they have no review of that number.
        ReviewGone: it ran out, and somebody else has it.
        BadVerdict: a lever has no such answer.
        VerdictStands: there is another verdict of theirs already.
        NotAllowed: they may not review there any more.
        MachineKey: it is a machine; people judge.
    """
    require(caller, Act.REVIEW, stood.rollout.name)
    check_person(caller)
    with database.writing() as transaction:
        review = own_review(transaction, stood, caller, number)
        check_verdict(stood.policy, said.answers, unsure=said.unsure, note=said.note)
        check_begun(said.started_at, at)
        store_decision = _seeded if review.kind == SEEDED else _decided
        return store_decision(transaction, stood, caller, review, said, at)


def _decided(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    review: Review,
    said: Said,
    at: datetime,
) -> Verdict:
    newest = Newest(transaction, stood.rollout)
    previous_decision = newest.decisions([review.case_id]).get(review.case_id, {}).get(caller.name)
    if (
        previous_decision is not None
        and previous_decision.review == review.id
        and _same(previous_decision, said)
    ):
        return _verdict(review, previous_decision, previous_decision.submitted_at or at)
    case = newest.cases([review.case_id])[review.case_id]
    exposures = _shown(transaction, stood, caller, review, case)
    revision = _next(previous_decision, review, said, exposures)
    if review.asked(at):
        exposures -= TOLD  # until then it is in no figure
    decision = Decision(
        key=case.key,
        reviewer=caller.name,
        answers=_given(said),
        claims=said.claims,
        exposure=exposure(review.kind, exposures, said.claims),
        unsure=said.unsure,
        started_at=said.started_at,
        submitted_at=at,
        note=said.note,
        revision=revision,
        seat=review.seat if review.kind == BLIND else None,
        review=review.id,
    )
    stored_batch = Records(transaction, stood.rollout).keep([decision], received_at=at)
    if stored_batch.answers[0].verdict is not Judged.ACCEPTED:
        raise VerdictStands(stored_batch.answers[0].reason)
    faults.point("review.decided")
    _close(transaction, stood, review, decision, stored_batch, at)
    if review.kind == BLIND:
        adjudicate_if_split(transaction, stood, review.case_id, at)
    return _verdict(review, decision, at)


def _next(
    before: Decision | None, review: Review, said: Said, shown: Collection[tuple[str, str]]
) -> int:
    """Return the revision of a new verdict.

    Raises:
        VerdictStands: what is stored stays.
    """
    current_revision = 0 if before is None else before.revision
    if before is not None and before.review != review.id:
        raise VerdictStands("you judged this case elsewhere; that verdict stands")
    if current_revision != (said.supersedes or 0):
        raise VerdictStands(
            f"your verdict is revision {current_revision}; to change it send `supersedes:"
            f" {current_revision}`"
            if current_revision
            else "you gave no verdict yet; leave `supersedes` out"
        )
    if current_revision and any(
        content in TELLING and page != REVIEW_PAGE for content, page in shown
    ):
        raise VerdictStands("you were shown what the model said; your verdict stands")
    return current_revision + 1


def _shown(
    transaction: Transaction, stood: Standing, caller: Caller, review: Review, case: Case
) -> frozenset[tuple[str, str]]:
    """Return what the caller was shown of a case, figures that may count it among it."""
    exposure_store = Shown(transaction, stood.rollout)
    exposures = exposure_store.of(caller.name, [review.case_id]).get(review.case_id, frozenset())
    figures_until = exposure_store.told(caller.name)
    return (
        exposures
        if figures_until is None or figures_until <= case.occurred_at
        else exposures | TOLD
    )


def _seeded(
    transaction: Transaction,
    stood: Standing,
    caller: Caller,
    review: Review,
    said: Said,
    at: datetime,
) -> Verdict:
    """Keep the verdict on a known case with its review: it answers as any other, and is none."""
    case = Newest(transaction, stood.rollout).cases([review.case_id])[review.case_id]
    key = case.key
    previous_decision = (
        None if review.said is None else _restored(key, caller, review.id, review.said)
    )
    if previous_decision is not None and _same(previous_decision, said):
        return _verdict(review, previous_decision, previous_decision.submitted_at or at)
    exposures = _shown(transaction, stood, caller, review, case)
    revision = _next(previous_decision, review, said, exposures)
    if exposures >= TOLD:  # a known case is in figures that were made before it was asked about
        raise review_gone()
    stored_answer: dict[str, Any] = {
        "answers": _given(said),
        "claims": said.claims,
        "unsure": said.unsure,
        "note": said.note,
        "started_at": None if said.started_at is None else micros(said.started_at),
        "submitted_at": micros(at),
        "revision": revision,
    }
    decision = _restored(key, caller, review.id, stored_answer)
    case_ids = {review.case_id}
    stored_batch = Kept((Accepted(Judged.ACCEPTED),), {key: review.case_id}, case_ids, set(), {})
    _close(transaction, stood, review, decision, stored_batch, at, stored_answer)
    return _verdict(review, decision, at)


def _restored(key: str, caller: Caller, review: int, kept: Mapping[str, Any]) -> Decision:
    started_at = kept["started_at"]
    times = {
        "started_at": None if started_at is None else instant_of(started_at),
        "submitted_at": instant_of(kept["submitted_at"]),
    }
    return Decision(
        key=key, reviewer=caller.name, exposure=BLIND, review=review, **{**kept, **times}
    )


def _close(
    transaction: Transaction,
    stood: Standing,
    review: Review,
    decision: Decision,
    kept: Kept,
    at: datetime,
    said: Mapping[str, Any] | None = None,
) -> None:
    """Close a review and queue its case; a known case as well, so that it takes as long."""
    Reviews(transaction, stood.rollout).close(review, decision.reviewer, at=at, said=said)
    queue(transaction, stood, kept, at)
    faults.point("review.due")


def own_review(transaction: Transaction, stood: Standing, caller: Caller, number: int) -> Review:
    """Return a review that the caller holds or has judged, locked after its case.

    Records lock cases first too, so that nobody waits for somebody who waits for them.
    """
    review_store, keys = Reviews(transaction, stood.rollout), CallerKeys(transaction, stood.rollout)
    review_row = review_store.find(number)
    if review_row is not None:
        keys.find(list(keys.keys_of([review_row.case_id]).values()), hold=True)
    review = review_store.find(number, hold=True)
    if review is None or not was_given(transaction, stood, caller, review):
        raise unknown_review(number)
    if review.reviewer != caller.name or review.state == WITHDRAWN:
        raise review_gone()
    require(caller, Act.REVIEW, stood.rollout.name, (review.site,))
    return review


def was_given(transaction: Transaction, stood: Standing, caller: Caller, review: Review) -> bool:
    """Say whether a review is, or ever was, the caller's: to others it is not there."""
    if review.reviewer == caller.name:
        return True
    case_exposures = Shown(transaction, stood.rollout).of(caller.name, [review.case_id])
    return (CASE, REVIEW_PAGE) in case_exposures.get(review.case_id, ())


def review_gone() -> ReviewGone:
    """Return the refusal of a verdict on a case that is the caller's no more."""
    return ReviewGone("somebody else has this case now, or judged it; take the next one")


def unknown_review(number: int) -> UnknownReview:
    """Return the refusal of a review that is none of the caller's: the same if there is one."""
    return UnknownReview(f"you have no review {number}; take the next one with `reviews/claims`")


def check_person(caller: Caller) -> None:
    """Let people pass.

    Raises:
        MachineKey: it is a machine; verdicts are people's.
    """
    if caller.machine:
        raise MachineKey("only people judge; use the key of a person who may review")


def _given(said: Said) -> dict[str, str | None]:
    return {lever: answer for lever, answer in said.answers.items() if answer is not None}


def _same(before: Decision, said: Said) -> bool:
    """Say whether a verdict that is stored says what is sent now."""
    stored_values = (before.answers, before.unsure, before.note, before.started_at, before.claims)
    return stored_values == (_given(said), said.unsure, said.note, said.started_at, said.claims)


def _verdict(review: Review, said: Decision, at: datetime) -> Verdict:
    return Verdict(review.id, said.key, said.answers, said.unsure, said.note, said.revision, at)
