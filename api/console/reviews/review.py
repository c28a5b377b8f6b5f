"""Review: one case, no hint, a key for each answer, and the next case."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.console.page.form import Signed
from api.console.page.own_settings import keep_keys
from api.console.page.page import page, to
from api.console.page.page_context import HOME, Visiting, Visitor, own_path
from api.console.page.text import segment
from api.console.reviews.answer_options import said
from api.console.reviews.review_case import in_order, presses, section_of, sheet_again, sheet_of
from api.console.reviews.review_form import (
    SAYS,
    Around,
    judge,
    judging_page,
    lately,
    on,
    standing_for,
    stands_because,
)
from rollout.core.scope.permissions import Act
from rollout.services.engine.rollout_state import Standing
from rollout.services.reviews.own_decisions import own_verdict
from rollout.services.reviews.review_queue import Task, review_counts
from rollout.services.reviews.reviews import claim, mine, release, reveal

router = APIRouter()
Number = Annotated[int, Path(ge=1, lt=2**53)]
After = Annotated[str, Query(max_length=20)]
AHEAD = 2
"""Cases held at once: the one on the page, and the next, whose picture is loaded meanwhile."""


@router.get("/review")
def choose(request: Request, visitor: Visiting) -> Response:
    """Go straight in where one rollout has something for the visitor, else let them choose."""
    waiting = review_counts(visitor.service, visitor.caller, visitor.at)
    if len(waiting) == 1:
        return to(f"/rollouts/{segment(next(iter(waiting)))}/review")
    may = visitor.may_somewhere(Act.REVIEW)
    return page(request, visitor, "review_choice", waiting=waiting, may=may)


@router.post("/review/keys")
def set_keys(form: Signed) -> Response:
    """Switch single keys off or on, for this browser."""
    answer = to(own_path(form.one("to")).removeprefix(HOME))
    keep_keys(answer, form.one("keys"))
    return answer


@router.get("/rollouts/{rollout}/review")
def next_case(request: Request, visitor: Visiting, rollout: str, after: After = "") -> Response:
    """Show the case that the visitor holds, or take the next one."""
    stood = standing_for(visitor, rollout)
    found = claim(visitor.service.database, visitor.caller, stood, visitor.at, hold=AHEAD)
    held = in_order((t for t in found.tasks if t.kind != "adjudicate"), visitor.at)
    kept = _kept(visitor, stood, held)
    around = Around(
        says=SAYS.get(after, ""),
        to_go=len(held) + found.waiting["blind"] + found.waiting["assisted"],
        ahead=tuple(task.case for task in kept[1:]),
        to_settle=found.waiting["adjudicate"] + len(found.tasks) - len(held),
    )
    sheet = sheet_of(kept[0], stood, visitor.at) if kept else None
    return judging_page(request, visitor, stood, sheet, around)


def _kept(visitor: Visitor, stood: Standing, held: list[Task]) -> list[Task]:
    """Give back what presses but is not on the page: nobody is to wait for it here."""
    later = [task for task in held[1:] if presses(task, visitor.at)]
    for task in later:
        release(visitor.service.database, visitor.caller, stood, task.review)
    return [task for task in held if task not in later]


@router.post("/rollouts/{rollout}/review/leave")
def leave(_form: Signed, visitor: Visiting, rollout: str) -> Response:
    """Give back what the visitor holds, so that others have it at once, and go to the overview."""
    stood = standing_for(visitor, rollout)
    database = visitor.service.database
    for task in mine(database, visitor.caller, stood, visitor.at).tasks:
        release(database, visitor.caller, stood, task.review)
    return to("/")


@router.post("/rollouts/{rollout}/review/{number}")
def answer(
    request: Request, form: Signed, visitor: Visiting, rollout: str, number: Number
) -> Response:
    """Keep a verdict and go on to the next case."""
    return judge(request, form, visitor, rollout, number, "review")


@router.get("/rollouts/{rollout}/review/{number}")
def again(request: Request, visitor: Visiting, rollout: str, number: Number) -> Response:
    """Bring back a case that the visitor has judged, if its answer may still be another."""
    stood = standing_for(visitor, rollout)
    return brought_back(request, visitor, stood, number)


def brought_back(request: Request, visitor: Visitor, stood: Standing, number: int) -> Response:
    """Return the page of a case that was judged, or of why its answer stands."""
    database, caller = visitor.service.database, visitor.caller
    held = mine(database, caller, stood, visitor.at).tasks
    if any(task.review == number for task in held):
        section = next(section_of(task.kind) for task in held if task.review == number)
        return on(stood.rollout.name, section)
    verdict = own_verdict(database, caller, stood, number)
    why = stands_because(verdict, lately(visitor, stood).last, visitor.at)
    sheet = sheet_again(verdict, stood)
    if not why:
        return judging_page(request, visitor, stood, sheet, Around())
    return page(request, visitor, "review_stands", sheet=sheet, why=why, rollout=stood.rollout.name)


@router.get("/rollouts/{rollout}/review/{number}/model")
def model(request: Request, visitor: Visiting, rollout: str, number: Number) -> Response:
    """Show what each version said of a case that the visitor has judged, if the policy lets it."""
    stood = standing_for(visitor, rollout)
    database, caller = visitor.service.database, visitor.caller
    told = reveal(database, caller, stood, number, visitor.at)
    verdict = own_verdict(database, caller, stood, number)
    levers = stood.policy.levers
    gave = [any(value is not None for value in one.answers.values()) for one in told]
    answers = [
        (one.version, said(levers, one.answers) if some else "", one.confidence)
        for one, some in zip(told, gave, strict=True)
    ]
    sheet = sheet_again(verdict, stood)
    return page(request, visitor, "review_model", sheet=sheet, told=answers, rollout=rollout)
