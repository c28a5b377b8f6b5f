"""The page on which a case is judged, shared by review and adjudication, and what it sends."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from api.console.page.form import Form
from api.console.page.own_settings import keeps_keys
from api.console.page.page import page, to
from api.console.page.page_context import Visitor
from api.console.page.text import first_large, segment
from api.console.reviews.answer_options import Asked, Question, asked, said
from api.console.reviews.case_media import fetched, media_of, policy_for
from api.console.reviews.review_case import Sheet, section_of, sheet_again, sheet_of
from api.schemas.reviews import DecisionRequest
from rollout.core.errors import Refusal
from rollout.core.policy.levers import Lever
from rollout.core.records.records import Case
from rollout.core.records.reviews import (
    BadVerdict,
    ReviewGone,
    VerdictStands,
    answer_by,
    check_begun,
)
from rollout.core.scope.permissions import Act, require
from rollout.services.engine.rollout_state import Standing
from rollout.services.reviews.own_decisions import Lately, OwnVerdict, judged_lately, own_verdict
from rollout.services.reviews.reviews import Said, decide, mine

STILL: Final = timedelta(seconds=30)
LAST: Final = 2
"""The last so many answers: each may be taken back until the next but one is given."""

TOLD: Final = "You have been shown what the model said of it, so your answer stands."
LATER: Final = "You have answered others since, so your answer stands."


def stands_because(verdict: OwnVerdict, last: Sequence[OwnVerdict], at: datetime) -> str:
    """Return why an answer can't be taken back any more, "" where it can.

    Args:
        verdict: the answer.
        last: what the same person answered last, the newest first.
        at: now.
    """
    if verdict.stands:
        return TOLD
    is_recent = any(verdict.review == recent.review for recent in last[:LAST])
    return "" if is_recent or at - verdict.at <= STILL else LATER


def to_undo(
    last: Sequence[OwnVerdict], at: datetime, *, before: int | None = None
) -> OwnVerdict | None:
    """Return the answer that Undo brings back, None where there is none.

    Args:
        last: what somebody answered last, the newest first.
        at: now.
        before: number of the review that was brought back already: the one before it is next.
    """
    task_numbers = [recent.review for recent in last]
    start = task_numbers.index(before) + 1 if before in task_numbers else 0
    decision = next(iter(last[start:]), None)
    return None if decision is None or stands_because(decision, last, at) else decision


UNSURE: Final = "unsure"
NOTE: Final = "note"
FIRST: Final = "answer-1"
TOO_LONG: Final = "Shorten the note to 2,000 characters; it is kept with your answer"
NO_ANSWER: Final = "Give an answer, or say that you are unsure"


class Unsound(Refusal):
    """The form holds no verdict; `errors` says by a field's id what to mend."""

    code = "bad-decision"

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Typed:
    """What stood in the form: answers by their fields, the note, when it was begun."""

    answers: Mapping[str, str]
    note: str
    began: str
    supersedes: str


def typed_in(form: Form, questions: Sequence[Question]) -> Typed:
    """Return what was typed, to be shown again."""
    answers = {
        question.field: form.every(question.field)[-1]
        for question in questions
        if form.every(question.field)
    }
    return Typed(answers, form.whole(NOTE), form.one("began"), form.one("supersedes"))


def said_in(form: Form, levers: Sequence[Lever], at: datetime) -> Said:
    """Return the verdict that a form holds.

    Raises:
        Unsound: an answer is missing, or none that the lever has; the note is too long.
    """
    answer_form = asked(levers)
    typed = typed_in(form, answer_form.questions)
    is_unsure = form.has(UNSURE)
    answers = {} if is_unsure else _answers(answer_form, typed)
    if not is_unsure and not answers:
        raise Unsound({FIRST: NO_ANSWER})
    try:
        return DecisionRequest(
            answers=dict(answers),
            unsure=is_unsure,
            note=typed.note.strip() or None,
            started_at=_begun(typed.began, at),
            supersedes=int(typed.supersedes) if typed.supersedes.isdigit() else None,
        ).said()
    except ValidationError as error:
        fields = {str(fault["loc"][0]) for fault in error.errors()}
        raise Unsound({NOTE: TOO_LONG} if NOTE in fields else {FIRST: NO_ANSWER}) from error


def wrong(refused: Exception, asked_now: Asked) -> Mapping[str, str]:
    """Return by a field's id what the service found wrong with an answer."""
    text = str(refused)
    for question in asked_now.questions:
        if text.startswith(f"{question.lever}: "):
            expected = question.range or "one of these"
            return {f"answer-{question.place}": f"Give {first_large(question.lever)} {expected}"}
    return {NOTE if text.startswith("the note") else FIRST: first_large(text)}


def _answers(page: Asked, typed: Typed) -> Mapping[str, str]:
    """Return the answers by lever; a field that was left empty is unsure on that lever alone."""
    typed_answers = (
        (question, typed.answers.get(question.field, "")) for question in page.questions
    )
    return {
        question.lever: answer.strip() if question.number else answer
        for question, answer in typed_answers
        if answer.strip()
    }


def _begun(text: str, at: datetime) -> datetime | None:
    """Return when the form was begun; None where that can't be: it is no reason to refuse."""
    try:
        began_at = datetime.fromisoformat(text)
        check_begun(began_at, at)
    except (ValueError, TypeError, BadVerdict):  # no time, one without a zone, or far away
        return None
    return began_at


JUST: Final = timedelta(minutes=2)
GONE, STOOD, FIXED = "gone", "stood", "fixed"
SAYS: Final[Mapping[str, str]] = {
    GONE: "Somebody else has that case by now, or it was answered: what you sent was not kept.",
    STOOD: "You had answered that case already, and that answer stands. Undo changes it.",
    FIXED: "That answer can't be taken back any more: it stands as it was.",
    "left": "Nothing is held for you any more.",
}
"""What became of the last answer, by the word in the address of the page that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What stands around a case on its page.

    Attributes:
        says: one line on what became of the answer before.
        to_go: how many cases wait, this one among them; None where that is not said.
        to_settle: how many conflicts wait for the same person, by the way.
        ahead: cases whose pictures are loaded meanwhile: held for the same person already.
        typed: what stood in a form that comes back, with `errors`.
    """

    says: str = ""
    to_go: int | None = None
    to_settle: int = 0
    ahead: tuple[Case, ...] = ()
    typed: Typed | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


def standing_for(visitor: Visitor, rollout: str) -> Standing:
    """Return how a rollout stands, to somebody who reviews in it.

    Raises:
        UnknownRollout: to them there is none.
        NotAllowed: they review nowhere in it; the text says who could.
    """
    require(visitor.caller, Act.REVIEW, rollout)
    return visitor.service.watch.rollout(rollout).standing


def lately(visitor: Visitor, stood: Standing) -> Lately:
    """Return what the visitor judged since their midnight, and last of all."""
    local_time = visitor.at.astimezone(ZoneInfo(visitor.zone))
    since = local_time.replace(hour=0, minute=0, second=0, microsecond=0)
    return judged_lately(visitor.service.database, visitor.caller, stood, since)


def judging_page(
    request: Request, visitor: Visitor, stood: Standing, sheet: Sheet | None, around: Around
) -> Response:
    """Return the page of a case, or of none that waits."""
    own_decisions = lately(visitor, stood)
    undone_task = None if sheet is None or sheet.revision is None else sheet.review
    media = [media_of(case.media) for case in around.ahead]
    picture_urls = () if sheet is None else fetched([sheet.media])
    response = page(
        request,
        None,
        "review",
        422 if around.errors else 200,
        looks=visitor,
        page_token=visitor.page_token,
        rollout=stood.rollout.name,
        asked=asked(stood.policy.levers),
        sheet=sheet,
        around=around,
        errors=around.errors,
        typed=_typed(sheet, around, visitor.at),
        done=own_decisions.count,
        undo=_undo(own_decisions, visitor, stood, undone_task),
        ask_model=_to_ask(own_decisions, stood) if undone_task is None else None,
        late=_late(own_decisions, stood, visitor.at) if undone_task is None else None,
        prefetch=[address for address in fetched(media) if address not in picture_urls],
        single_keys=keeps_keys(request),
    )
    response.headers["Content-Security-Policy"] = policy_for([*picture_urls, *fetched(media)])
    return response


def judge(
    request: Request, form: Form, visitor: Visitor, rollout: str, number: int, section: str
) -> Response:
    """Keep the verdict that a form holds, and go on to the next case.

    The form names the review that it judges: sent twice, or from a page that was gone back to, it
    is kept once, and never for another case.
    """
    state = standing_for(visitor, rollout)
    levers = state.policy.levers
    try:
        decision = said_in(form, levers, visitor.at)
        decide(visitor.service.database, visitor.caller, state, number, decision, visitor.at)
    except Unsound as error:
        return _back(request, form, visitor, state, number, error.errors)
    except BadVerdict as error:
        return _back(request, form, visitor, state, number, wrong(error, asked(levers)))
    except ReviewGone:
        return on(rollout, section, GONE)
    except VerdictStands:
        return on(rollout, section, FIXED if form.one("supersedes") else STOOD)
    return on(rollout, section)


def on(rollout: str, section: str, after: str = "") -> RedirectResponse:
    """Go on to the next case of a queue, with a word on what became of the last."""
    queue_path = "review" if section == "review" else "adjudication/next"
    return to(f"/rollouts/{segment(rollout)}/{queue_path}" + (f"?after={after}" if after else ""))


def _back(
    request: Request,
    form: Form,
    visitor: Visitor,
    stood: Standing,
    number: int,
    errors: Mapping[str, str],
) -> Response:
    """Show the case again with what was typed; one that is gone meanwhile is not shown."""
    claimed_tasks = mine(visitor.service.database, visitor.caller, stood, visitor.at).tasks
    task = next((task for task in claimed_tasks if task.review == number), None)
    typed = typed_in(form, asked(stood.policy.levers).questions)
    context = Around(typed=typed, errors=errors)
    if task is not None:
        review_case = sheet_of(task, stood, visitor.at)
    else:
        decision = own_verdict(visitor.service.database, visitor.caller, stood, number)
        review_case = sheet_again(decision, stood)
    return judging_page(request, visitor, stood, review_case, context)


def _typed(sheet: Sheet | None, around: Around, at: datetime) -> Typed:
    if around.typed is not None:
        return around.typed
    revision = "" if sheet is None or sheet.revision is None else str(sheet.revision)
    return Typed({}, "" if sheet is None else sheet.note, at.isoformat(), revision)


def _undo(
    before: Lately, visitor: Visitor, stood: Standing, brought: int | None
) -> Mapping[str, str] | None:
    """Return the answer that Undo brings back: its words and where it is."""
    decision = to_undo(before.last, visitor.at, before=brought)
    if decision is None:
        return None
    text = said(stood.policy.levers, decision.answers)
    return {"says": text, "at": _at(stood, decision.review, section_of(decision.kind))}


def _to_ask(before: Lately, stood: Standing) -> str | None:
    """Return where the model's answer to the last case stands, if the policy lets it be seen."""
    if stood.policy.reveal != "after" or not before.last:
        return None
    return _at(stood, before.last[0].review, "review") + "/model"


def _at(stood: Standing, review: int, section: str) -> str:
    return f"/rollouts/{segment(stood.rollout.name)}/{section}/{review}"


def _late(before: Lately, stood: Standing, at: datetime) -> Mapping[str, object] | None:
    """Return until when the last answer was waited for, if it came after that a moment ago."""
    if not before.last or at - before.last[0].at > JUST:
        return None
    recent_decisions = before.last[0]
    deadline = answer_by(stood.policy, recent_decisions.case.occurred_at)
    if (
        deadline is None
        or recent_decisions.started_at is None
        or not recent_decisions.started_at < deadline <= recent_decisions.at
    ):
        return None
    return {"by": deadline, "zone": stood.policy.zone_of(recent_decisions.case.site)}
