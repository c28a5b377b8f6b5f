"""A verdict as the review page sends it: read into what the service takes, or what is wrong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from api.console.asked import Asked, Question, asked
from api.console.posted import Form
from api.console.wording import first_large
from api.schemas.reviews import DecisionRequest
from rollout.core.errors import Refusal
from rollout.core.levers import Lever
from rollout.core.reviewing import BadVerdict, check_begun
from rollout.services.reviewing import Said

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
    answers = {q.field: form.every(q.field)[-1] for q in questions if form.every(q.field)}
    return Typed(answers, form.whole(NOTE), form.one("began"), form.one("supersedes"))


def said_in(form: Form, levers: Sequence[Lever], at: datetime) -> Said:
    """Return the verdict that a form holds.

    Raises:
        Unsound: an answer is missing, or none that the lever has; the note is too long.
    """
    page = asked(levers)
    typed = typed_in(form, page.questions)
    unsure = form.has(UNSURE)
    answers = {} if unsure else _answers(page, typed)
    if not unsure and not answers:
        raise Unsound({FIRST: NO_ANSWER})
    try:
        return DecisionRequest(
            answers=dict(answers),
            unsure=unsure,
            note=typed.note.strip() or None,
            started_at=_begun(typed.began, at),
            supersedes=int(typed.supersedes) if typed.supersedes.isdigit() else None,
        ).said()
    except ValidationError as error:
        fields = {str(fault["loc"][0]) for fault in error.errors()}
        raise Unsound({NOTE: TOO_LONG} if NOTE in fields else {FIRST: NO_ANSWER}) from error


def wrong(refused: Exception, asked_now: Asked) -> Mapping[str, str]:
    """Return by a field's id what the service found wrong with an answer."""
    says = str(refused)
    for question in asked_now.questions:
        if says.startswith(f"{question.lever}: "):
            right = question.range or "one of these"
            return {f"answer-{question.place}": f"Give {first_large(question.lever)} {right}"}
    return {NOTE if says.startswith("the note") else FIRST: first_large(says)}


def _answers(page: Asked, typed: Typed) -> Mapping[str, str]:
    """Return the answers by lever; a field that was left empty is unsure on that lever alone."""
    given = ((q, typed.answers.get(q.field, "")) for q in page.questions)
    return {q.lever: said.strip() if q.number else said for q, said in given if said.strip()}


def _begun(text: str, at: datetime) -> datetime | None:
    """Return when the form was begun; None where that can't be: it is no reason to refuse."""
    try:
        found = datetime.fromisoformat(text)
        check_begun(found, at)
    except (ValueError, TypeError, BadVerdict):  # no time, one without a zone, or far away
        return None
    return found
