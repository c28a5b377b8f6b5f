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
    review_totals = review_counts(visitor.service, visitor.caller, visitor.at)
    if len(review_totals) == 1:
        return to(f"/rollouts/{segment(next(iter(review_totals)))}/review")
    can_review = visitor.may_somewhere(Act.REVIEW)
    return page(request, visitor, "review_choice", waiting=review_totals, may=can_review)


@router.post("/review/keys")
def set_keys(form: Signed) -> Response:
    """Switch single keys off or on, for this browser."""
    response = to(own_path(form.one("to")).removeprefix(HOME))
    keep_keys(response, form.one("keys"))
    return response


@router.get("/rollouts/{rollout}/review")
def next_case(request: Request, visitor: Visiting, rollout: str, after: After = "") -> Response:
    """Show the case that the visitor holds, or take the next one."""
    state = standing_for(visitor, rollout)
    reviewer_tasks = claim(visitor.service.database, visitor.caller, state, visitor.at, hold=AHEAD)
    claimed_tasks = in_order(
        (
            claimed_task
            for claimed_task in reviewer_tasks.tasks
            if claimed_task.kind != "adjudicate"
        ),
        visitor.at,
    )
    page_tasks = _kept(visitor, state, claimed_tasks)
    context = Around(
        says=SAYS.get(after, ""),
        to_go=len(claimed_tasks)
        + reviewer_tasks.waiting["blind"]
        + reviewer_tasks.waiting["assisted"],
        ahead=tuple(task.case for task in page_tasks[1:]),
        to_settle=reviewer_tasks.waiting["adjudicate"]
        + len(reviewer_tasks.tasks)
        - len(claimed_tasks),
    )
    review_case = sheet_of(page_tasks[0], state, visitor.at) if page_tasks else None
    return judging_page(request, visitor, state, review_case, context)


def _kept(visitor: Visitor, stood: Standing, held: list[Task]) -> list[Task]:
    """Give back what presses but is not on the page: nobody is to wait for it here."""
    urgent_tasks = [task for task in held[1:] if presses(task, visitor.at)]
    for task in urgent_tasks:
        release(visitor.service.database, visitor.caller, stood, task.review)
    return [task for task in held if task not in urgent_tasks]


@router.post("/rollouts/{rollout}/review/leave")
def leave(_form: Signed, visitor: Visiting, rollout: str) -> Response:
    """Give back what the visitor holds, so that others have it at once, and go to the overview."""
    state = standing_for(visitor, rollout)
    database = visitor.service.database
    for task in mine(database, visitor.caller, state, visitor.at).tasks:
        release(database, visitor.caller, state, task.review)
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
    state = standing_for(visitor, rollout)
    return brought_back(request, visitor, state, number)


def brought_back(request: Request, visitor: Visitor, stood: Standing, number: int) -> Response:
    """Return the page of a case that was judged, or of why its answer stands."""
    database, caller = visitor.service.database, visitor.caller
    claimed_tasks = mine(database, caller, stood, visitor.at).tasks
    if any(task.review == number for task in claimed_tasks):
        section = next(section_of(task.kind) for task in claimed_tasks if task.review == number)
        return on(stood.rollout.name, section)
    decision = own_verdict(database, caller, stood, number)
    reason = stands_because(decision, lately(visitor, stood).last, visitor.at)
    review_case = sheet_again(decision, stood)
    if not reason:
        return judging_page(request, visitor, stood, review_case, Around())
    return page(
        request, visitor, "review_stands", sheet=review_case, why=reason, rollout=stood.rollout.name
    )


@router.get("/rollouts/{rollout}/review/{number}/model")
def model(request: Request, visitor: Visiting, rollout: str, number: Number) -> Response:
    """Show what each version said of a case that the visitor has judged, if the policy lets it."""
    state = standing_for(visitor, rollout)
    database, caller = visitor.service.database, visitor.caller
    predictions = reveal(database, caller, state, number, visitor.at)
    decision = own_verdict(database, caller, state, number)
    levers = state.policy.levers
    has_answers = [
        any(value is not None for value in prediction.answers.values())
        for prediction in predictions
    ]
    answers = [
        (
            prediction.version,
            said(levers, prediction.answers) if has_answer else "",
            prediction.confidence,
        )
        for prediction, has_answer in zip(predictions, has_answers, strict=True)
    ]
    review_case = sheet_again(decision, state)
    return page(request, visitor, "review_model", sheet=review_case, told=answers, rollout=rollout)
