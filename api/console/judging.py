"""The page on which a case is judged, shared by review and adjudication, and what it sends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from api.console.asked import asked, said
from api.console.case_media import fetched, media_of, policy_for
from api.console.own_settings import keeps_keys
from api.console.page import page, to
from api.console.posted import Form
from api.console.sheet import Sheet, section_of, sheet_again, sheet_of
from api.console.taking_back import to_undo
from api.console.verdict_form import Typed, Unsound, said_in, typed_in, wrong
from api.console.visitor import Visitor
from api.console.wording import segment
from rollout.core.records import Case
from rollout.core.reviewing import BadVerdict, ReviewGone, VerdictStands, answer_by
from rollout.core.rights import Act, require
from rollout.services.own_verdicts import Lately, judged_lately, own_verdict
from rollout.services.reviewing import decide, mine
from rollout.services.standing import Standing

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
    here = visitor.at.astimezone(ZoneInfo(visitor.zone))
    since = here.replace(hour=0, minute=0, second=0, microsecond=0)
    return judged_lately(visitor.service.database, visitor.caller, stood, since)


def judging_page(
    request: Request, visitor: Visitor, stood: Standing, sheet: Sheet | None, around: Around
) -> Response:
    """Return the page of a case, or of none that waits."""
    before = lately(visitor, stood)
    brought = None if sheet is None or sheet.revision is None else sheet.review
    media = [media_of(case.media) for case in around.ahead]
    shown = () if sheet is None else fetched([sheet.media])
    answer = page(
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
        done=before.count,
        undo=_undo(before, visitor, stood, brought),
        ask_model=_to_ask(before, stood) if brought is None else None,
        late=_late(before, stood, visitor.at) if brought is None else None,
        prefetch=[address for address in fetched(media) if address not in shown],
        single_keys=keeps_keys(request),
    )
    answer.headers["Content-Security-Policy"] = policy_for([*shown, *fetched(media)])
    return answer


def judge(
    request: Request, form: Form, visitor: Visitor, rollout: str, number: int, section: str
) -> Response:
    """Keep the verdict that a form holds, and go on to the next case.

    The form names the review that it judges: sent twice, or from a page that was gone back to, it
    is kept once, and never for another case.
    """
    stood = standing_for(visitor, rollout)
    levers = stood.policy.levers
    try:
        verdict = said_in(form, levers, visitor.at)
        decide(visitor.service.database, visitor.caller, stood, number, verdict, visitor.at)
    except Unsound as refused:
        return _back(request, form, visitor, stood, number, refused.errors)
    except BadVerdict as refused:
        return _back(request, form, visitor, stood, number, wrong(refused, asked(levers)))
    except ReviewGone:
        return on(rollout, section, GONE)
    except VerdictStands:
        return on(rollout, section, FIXED if form.one("supersedes") else STOOD)
    return on(rollout, section)


def on(rollout: str, section: str, after: str = "") -> RedirectResponse:
    """Go on to the next case of a queue, with a word on what became of the last."""
    where = "review" if section == "review" else "adjudication/next"
    return to(f"/rollouts/{segment(rollout)}/{where}" + (f"?after={after}" if after else ""))


def _back(
    request: Request,
    form: Form,
    visitor: Visitor,
    stood: Standing,
    number: int,
    errors: Mapping[str, str],
) -> Response:
    """Show the case again with what was typed; one that is gone meanwhile is not shown."""
    held = mine(visitor.service.database, visitor.caller, stood, visitor.at).tasks
    task = next((task for task in held if task.review == number), None)
    typed = typed_in(form, asked(stood.policy.levers).questions)
    around = Around(typed=typed, errors=errors)
    if task is not None:
        sheet = sheet_of(task, stood, visitor.at)
    else:
        verdict = own_verdict(visitor.service.database, visitor.caller, stood, number)
        sheet = sheet_again(verdict, stood)
    return judging_page(request, visitor, stood, sheet, around)


def _typed(sheet: Sheet | None, around: Around, at: datetime) -> Typed:
    if around.typed is not None:
        return around.typed
    revision = "" if sheet is None or sheet.revision is None else str(sheet.revision)
    return Typed({}, "" if sheet is None else sheet.note, at.isoformat(), revision)


def _undo(
    before: Lately, visitor: Visitor, stood: Standing, brought: int | None
) -> Mapping[str, str] | None:
    """Return the answer that Undo brings back: its words and where it is."""
    found = to_undo(before.last, visitor.at, before=brought)
    if found is None:
        return None
    words = said(stood.policy.levers, found.answers)
    return {"says": words, "at": _at(stood, found.review, section_of(found.kind))}


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
    last = before.last[0]
    by = answer_by(stood.policy, last.case.occurred_at)
    if by is None or last.started_at is None or not last.started_at < by <= last.at:
        return None
    return {"by": by, "zone": stood.policy.zone_of(last.case.site)}
