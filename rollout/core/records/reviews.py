"""Which people are asked about a case, how blind their verdicts are, and what a verdict may say.

A case's seats follow from its draws and from the stage on which it occurred, before anything is
compared: no answer of a model adds, drops or moves one. The one exception is a policy's
confidence floor, below which people decide what the model was unsure of.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rollout.core.errors import Refusal
from rollout.core.policy.levers import Lever
from rollout.core.policy.policy import EvidenceRules, Policy
from rollout.core.records.records import Case
from rollout.core.scope.assignment import unit_of
from rollout.core.statistics.sampling import draw

BLIND, ASSISTED, ADJUDICATE, SEEDED = "blind", "assisted", "adjudication", "gold"
UNSEEN: Final = (BLIND, SEEDED)
"""Kinds whose reviewer sees nothing of the model; they are called `blind` to everybody."""

NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,2})?")
"""A number as counting reads it."""

REVEALED, UNKNOWN = "revealed", "unknown"
WORSE: Final = (BLIND, UNKNOWN, ASSISTED, REVEALED)
"""Exposures, from the one that is evidence to the one that never is."""

LONGEST, ASKEW = timedelta(days=7), timedelta(minutes=5)

CASE, PREDICTION, VERDICTS = "case", "prediction", "decisions"
REVIEW_PAGE, REVEAL_PAGE = "review", "reveal"
TELLING: Final = frozenset({PREDICTION, VERDICTS})
"""What somebody who was shown it can't judge blind any more."""


class UnknownReview(Refusal):
    """The caller has no review of that id."""

    code = "unknown-review"


class UnknownCase(Refusal):
    """No case of that key was ever sent."""

    code = "unknown-case"


class ReviewGone(Refusal):
    """It was theirs, their time ran out, and somebody else has it now."""

    code = "review-gone"


class VerdictStands(Refusal):
    """There is a verdict already, and what was sent says something else."""

    code = "conflict"


class NotRevealed(Refusal):
    """The model's answer is not shown to reviewers, or not yet."""

    code = "not-revealed"


class StillOpen(Refusal):
    """People are still to judge the case blind."""

    code = "case-still-open"


class BadVerdict(Refusal):
    """An answer is none that the lever has."""

    code = "bad-decision"


@dataclass(frozen=True, slots=True)
class Seat:
    """A place for one person at a case; seats of a kind are numbered from 1."""

    kind: str
    number: int = 1


def seats(
    policy: Policy, rung: int, *, drawn: float, second: float, sure: bool = True
) -> tuple[Seat, ...]:
    """Return who is asked about a case.

    Args:
        policy: the policy in force.
        rung: where the acting version stood when the case occurred; 0 is shadow.
        drawn: the draw `stage` of the case's unit.
        second: the draw `second` of the case.
        sure: False where the acting version's confidence is below the policy's floor.

    Returns:
        In shadow and in the blind and audited shares the blind seats; one assisted seat where a
        person confirms; one blind seat below the floor; nothing where the model decides unwatched.
    """
    stage = None if rung == 0 else policy.stage(rung)
    if stage is None or drawn < stage.blind:
        return blind_seats(policy.evidence, second)
    if not sure:
        return (Seat(BLIND),)
    if not stage.model_decides:
        return (Seat(ASSISTED),)
    return blind_seats(policy.evidence, second) if drawn < stage.seen else ()


def blind_seats(rules: EvidenceRules, second: float) -> tuple[Seat, ...]:
    """Return the blind seats of a case: as many as its verdicts, and for some a second reading.

    Where several verdicts are asked for, every case is read twice already.
    """
    needs_second = rules.verdicts == 1 and second < rules.second_verdict
    return tuple(Seat(BLIND, number + 1) for number in range(rules.verdicts + needs_second))


def draws_of(policy: Policy, salt: bytes, case: Case) -> tuple[float, float]:
    """Return the draws that decide a case's seats: `stage` of its unit, `second` of itself."""
    sampling_key = unit_of(policy, case.key, case.site, case.occurred_at, case.episode)
    return draw(salt, "stage", sampling_key), draw(salt, "second", case.key)


def turn(salt: bytes, key: str) -> float:
    """Return the place of a case among those that are due at the same instant."""
    return draw(salt, "queue", key)


def due_at(policy: Policy, occurred_at: datetime, received_at: datetime) -> datetime:
    """Return until when a verdict counts as evidence, and so until when it is asked for."""
    return max(occurred_at, received_at) + policy.evidence.grace


def answer_by(policy: Policy, occurred_at: datetime) -> datetime | None:
    """Return until when an answer is of use to whoever acts; None where no lever says."""
    time_limits = [
        lever.answer_within for lever in policy.levers if lever.answer_within is not None
    ]
    return occurred_at + min(time_limits) if time_limits else None


def worst(*exposures: str) -> str:
    """Return the exposure that is least worth as evidence; none at all is `blind`.

    >>> worst("blind", "unknown"), worst("assisted", "revealed"), worst()
    ('unknown', 'revealed', 'blind')
    """
    return max(exposures, key=WORSE.index, default=BLIND)


def exposure(kind: str, shown: Iterable[tuple[str, str]], claimed: str = BLIND) -> str:
    """Return how blind a verdict is, from what the server showed before it was given.

    Args:
        kind: of the review.
        shown: what its reviewer was shown of the case, each with the page.
        claimed: what the caller says; it can only make it worse.
    """
    if kind == ADJUDICATE:
        return REVEALED
    revealing_pages = [page for content, page in shown if content in TELLING]
    if not revealing_pages:
        return claimed
    is_review_page_only = kind == ASSISTED and all(page == REVIEW_PAGE for page in revealing_pages)
    return worst(claimed, ASSISTED if is_review_page_only else REVEALED)


def differ(said: Collection[Mapping[str, str | None]]) -> bool:
    """Say whether two of several people who are sure gave different answers on a lever.

    >>> differ([{"alarm": "bear"}, {"alarm": None}]), differ([{"alarm": "bear"}, {"alarm": "fox"}])
    (False, True)
    """
    levers = {lever for answers in said for lever in answers}
    distinct_answers = (
        {answer_set[lever] for answer_set in said if answer_set.get(lever) is not None}
        for lever in levers
    )
    return any(len(answers) > 1 for answers in distinct_answers)


def check_verdict(
    policy: Policy, answers: Mapping[str, str | None], *, unsure: bool, note: str | None = None
) -> None:
    """Let a verdict pass that the policy's levers have, or refuse it.

    A lever that is left out, or null, is "unsure" on that lever.

    Raises:
        BadVerdict: says which answer is wrong, and what would be right.
    """
    given_answers = {lever: answer for lever, answer in answers.items() if answer is not None}
    if note is not None and "\0" in note:
        raise BadVerdict("the note has a NUL character; leave it out")
    if unsure and given_answers:
        raise BadVerdict("unsure and an answer at once; send one of them")
    if not unsure and not given_answers:
        raise BadVerdict(f"no answer; give one for {_named(policy)}, or `unsure: true`")
    for name, answer in given_answers.items():
        if name not in policy.lever:
            raise BadVerdict(f"no lever {name}; there is {_named(policy)}")
        problem = _fault(policy.lever[name], answer)
        if problem:
            raise BadVerdict(problem)


def check_begun(started_at: datetime | None, at: datetime) -> None:
    """Let the instant pass at which somebody began on a verdict that is given at `at`.

    Raises:
        BadVerdict: it is more than 5 min ahead, or a week back: some clock is wrong.
    """
    if started_at is not None and not at - LONGEST <= started_at <= at + ASKEW:
        raise BadVerdict(f"started_at is not within a week before {at.isoformat()}; leave it out")


def _named(policy: Policy) -> str:
    return ", ".join(policy.lever)


def _fault(lever: Lever, said: str) -> str:
    if lever.number is None:
        return "" if said in lever.labels else f"{lever.id}: one of {', '.join(lever.labels)}"
    low, high = lever.number.low, lever.number.high
    is_in_range = NUMBER.fullmatch(said) is not None and low <= float(said) <= high
    return "" if is_in_range else f"{lever.id}: a number from {low:g} to {high:g}"
