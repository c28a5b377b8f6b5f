"""The sheet before a reviewer: one case with all that they may see of it, and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from api.console.page.text import first_large
from api.console.reviews.answer_options import said
from api.console.reviews.case_media import Media, media_of
from rollout.core.records.records import Case
from rollout.reports.text.formatting import listed
from rollout.services.engine.rollout_state import Standing
from rollout.services.reviews.own_decisions import OwnVerdict
from rollout.services.reviews.review_queue import Answer, Queue, Task
from rollout.services.reviews.reviews import CLAIM

SECTIONS: Final = {"adjudicate": "adjudication"}


@dataclass(frozen=True, slots=True)
class Pressing:
    """Somebody waits for the answer: until when, and what is done without it."""

    by: datetime
    then: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A case to judge, or one that was judged and is looked at again.

    Attributes:
        review: number of the review, which the answer is sent to.
        section: `review` or `adjudication`: where its page is.
        case: as it was sent.
        zone: of the site's clock.
        media: what it brought for the eye.
        pressing: if somebody waits for the answer; `too_late`: since when nobody does any more.
        proposal: of an assisted review what the model says, in words; "" for all others.
        verdicts: of an adjudication the answers that were given, in words.
        revision: of the answer that stands, None where none was given.
        stands: that answer in words; `note`: what was written beside it.
    """

    review: int
    section: str
    case: Case
    zone: str
    media: Media
    pressing: Pressing | None = None
    too_late: datetime | None = None
    proposal: str = ""
    verdicts: tuple[str, ...] = ()
    revision: int | None = None
    stands: str = ""
    note: str = ""


def presses(task: Task, at: datetime) -> bool:
    """Say whether somebody still waits for the answer."""
    return task.answer_by is not None and at < task.answer_by


def in_order(tasks: Iterable[Task], at: datetime) -> list[Task]:
    """Return what somebody holds in the order in which it is to be judged: as it is given out."""
    task_list = list(tasks)
    urgent = [(task.answer_by, index) for index, task in enumerate(task_list) if presses(task, at)]
    urgent_tasks = [task_list[index] for _, index in sorted(urgent)]
    return [*urgent_tasks, *(task for task in task_list if not presses(task, at))]


def sheet_of(task: Task, stood: Standing, at: datetime) -> Sheet:
    """Return the sheet of a case that somebody holds."""
    deadline = task.answer_by
    was_urgent = deadline is not None and task.claimed_until - CLAIM < deadline <= at
    return Sheet(
        review=task.review,
        section=section_of(task.kind),
        case=task.case,
        zone=stood.policy.zone_of(task.case.site),
        media=media_of(task.case.media),
        pressing=Pressing(deadline, then_of(stood))
        if deadline is not None and at < deadline
        else None,
        too_late=deadline if was_urgent else None,
        proposal=proposal_of(task.proposal, stood),
        verdicts=tuple(
            first_large(said(stood.policy.levers, answers)) for answers in task.verdicts
        ),
    )


def sheet_again(verdict: OwnVerdict, stood: Standing) -> Sheet:
    """Return the sheet of a case that somebody has judged, with what they said."""
    return Sheet(
        review=verdict.review,
        section=section_of(verdict.kind),
        case=verdict.case,
        zone=stood.policy.zone_of(verdict.case.site),
        media=media_of(verdict.case.media),
        proposal=proposal_of(verdict.proposal, stood),
        revision=verdict.revision,
        stands=said(stood.policy.levers, verdict.answers),
        note=verdict.note or "",
    )


def section_of(kind: Queue) -> str:
    """Return where cases of a queue have their page."""
    return SECTIONS.get(kind, "review")


def then_of(stood: Standing) -> str:
    """Return what is done where nobody answers in time: of the levers that wait the shortest."""
    fallbacks = [
        (lever.answer_within, lever.unanswered)
        for lever in stood.policy.levers
        if lever.answer_within
    ]
    shortest = min((period for period, _ in fallbacks), default=None)
    names = [fallback for period, fallback in fallbacks if period == shortest and fallback]
    return listed(list(dict.fromkeys(names)))


def proposal_of(answer: Answer | None, stood: Standing) -> str:
    """Say what the model proposes, "" for nothing."""
    if answer is None:
        return ""
    levers = stood.policy.levers
    has_answer = any(value is not None for value in answer.answers.values())
    return f"{answer.version}: {said(levers, answer.answers) if has_answer else 'no answer'}"
