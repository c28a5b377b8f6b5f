"""The review case: what a reviewer may see of a case."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.console.reviews.answer_options import describe_answers
from api.console.reviews.case_media import CaseMedia, sort_media
from rollout.core.records.records import Case
from rollout.reports.text.formatting import capitalize_first, join_words
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.reviews.own_decisions import OwnDecision
from rollout.services.reviews.review_queue import ClaimedTask, ModelAnswer, ReviewQueue
from rollout.services.reviews.reviews import CLAIM_DURATION

SECTIONS_BY_QUEUE: Final = {"adjudicate": "adjudication"}


@dataclass(frozen=True, slots=True)
class AnswerDeadline:
    """Deadline of an urgent task, and the fallback without an answer."""

    answer_by: datetime
    fallback: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCase:
    """A case to decide, or a decided one shown again.

    Attributes:
        review: number of the review task.
        section: `review` or `adjudication`, part of its path.
        case: the case as sent.
        zone: timezone of the site.
        media: its media.
        pressing: deadline of an urgent task; `too_late`: a missed deadline.
        proposal: the model's answer in an assisted review, else "".
        answers: the conflicting answers of an adjudication.
        revision: revision of the stored answer, or None.
        stands: the stored answer in words; `note`: its note.
    """

    review: int
    section: str
    case: Case
    zone: str
    media: CaseMedia
    pressing: AnswerDeadline | None = None
    too_late: datetime | None = None
    proposal: str = ""
    answers: tuple[str, ...] = ()
    revision: int | None = None
    stands: str = ""
    note: str = ""


def build_review_case(task: ClaimedTask, state: RolloutState, at: datetime) -> ReviewCase:
    """Return the review case of a claimed task."""
    deadline = task.answer_by
    was_urgent = deadline is not None and task.claimed_until - CLAIM_DURATION < deadline <= at
    return ReviewCase(
        review=task.review,
        section=get_section(task.kind),
        case=task.case,
        zone=state.policy.get_timezone(task.case.site),
        media=sort_media(task.case.media),
        pressing=AnswerDeadline(deadline, describe_fallback(state))
        if deadline is not None and at < deadline
        else None,
        too_late=deadline if was_urgent else None,
        proposal=describe_model_answer(task.proposal, state),
        answers=tuple(
            capitalize_first(describe_answers(state.policy.levers, answers))
            for answers in task.verdicts
        ),
    )


def build_decided_case(decision: OwnDecision, state: RolloutState) -> ReviewCase:
    """Return the review case of a decided task, with its decision."""
    return ReviewCase(
        review=decision.task_number,
        section=get_section(decision.kind),
        case=decision.case,
        zone=state.policy.get_timezone(decision.case.site),
        media=sort_media(decision.case.media),
        proposal=describe_model_answer(decision.proposal, state),
        revision=decision.revision,
        stands=describe_answers(state.policy.levers, decision.answers),
        note=decision.note or "",
    )


def get_section(kind: ReviewQueue) -> str:
    """Return the path part of a task kind's pages."""
    return SECTIONS_BY_QUEUE.get(kind, "review")


def describe_fallback(state: RolloutState) -> str:
    """Describe the fallback of the levers with the shortest time limit."""
    fallbacks = [
        (lever.answer_within, lever.unanswered)
        for lever in state.policy.levers
        if lever.answer_within
    ]
    shortest = min((period for period, _ in fallbacks), default=None)
    names = [fallback for period, fallback in fallbacks if period == shortest and fallback]
    return join_words(list(dict.fromkeys(names)))


def describe_model_answer(answer: ModelAnswer | None, state: RolloutState) -> str:
    """Describe the model's proposal, or ""."""
    if answer is None:
        return ""
    levers = state.policy.levers
    has_answer = any(value is not None for value in answer.answers.values())
    return (
        f"{answer.version}:"
        f" {describe_answers(levers, answer.answers) if has_answer else 'no answer'}"
    )
