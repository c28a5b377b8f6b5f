"""Cases held ahead of a review page: its script takes an answer and shows the next case at once.

Without scripts the form of the page itself does the same, one page after the other.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from api.console.page.form import Form, SignedForm
from api.console.page.page import HEADERS, render_html
from api.console.page.page_context import CurrentVisitor, Visitor
from api.console.reviews.review_case import build_review_case
from api.console.reviews.review_form import (
    ALREADY_DECIDED,
    REASSIGNED,
    RESULT_TEXTS,
    ReviewPageContext,
    build_page_values,
    load_review_state,
    store_decision,
)
from rollout.core.errors import RefusalError
from rollout.core.records.reviews import (
    DecisionConflictError,
    ReviewReassignedError,
    UnknownReviewError,
)
from rollout.reports.text.formatting import capitalize_first
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.reviews.held_cases import HeldPage, hold_cases_ahead

router = APIRouter()
MAX_DIGITS: Final = 15
"""Digits of a task's number, so that every database can compare it."""

ERASED_TEXT: Final = "That case is no longer stored. Your answer was not stored."


def _read_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise RefusalError("this is not a form of the console; go back and reload the page")
    return int(text)


def _read_held_page(form: SignedForm) -> HeldPage:
    """Read what the page has, from its script's form."""
    return HeldPage(
        current=_read_number(form.get_text("shown")),
        held={_read_number(text) for text in form.get_values("held")},
        terms=form.get_text("terms"),
    )


@router.post("/rollouts/{rollout}/review-ahead")
def hold_next_cases(
    request: Request,
    form: SignedForm,
    visitor: CurrentVisitor,
    rollout: str,
    page: Annotated[HeldPage, Depends(_read_held_page)],
) -> Response:
    """Store the answer of a form, if it has one, and return the next cases."""
    state = load_review_state(visitor, rollout)
    refusal = ""
    if form.has_field("answered"):
        refusal = _store_answer(form, visitor, state, _read_number(form.get_text("answered")))
    tasks = hold_cases_ahead(
        visitor.service.database,
        visitor.caller,
        state,
        page,
        visitor.at,
        claim_time=visitor.wall_time,
    )
    context = ReviewPageContext(
        to_go=tasks.to_go, to_settle=tasks.to_settle, text=RESULT_TEXTS.get(tasks.reload_reason, "")
    )
    values = build_page_values(visitor, state, None, context)
    cases = [build_review_case(task, state, visitor.at) for task in tasks.tasks]

    def render(template: str, **more: Any) -> str:
        return render_html(request, None, template, **{**values, **more})

    content = {
        "refused": refusal,
        "reload": tasks.reload_reason,
        "around": render("review_around"),
        "held": [
            {
                "review": case.review,
                "html": "" if case.review in page.held else render("review_held", review_case=case),
            }
            for case in cases
        ],
    }
    return JSONResponse(content, 409 if refusal else 200, HEADERS)


def _store_answer(form: Form, visitor: Visitor, state: RolloutState, task_number: int) -> str:
    """Store an answer; return why it was refused, or ""."""
    try:
        store_decision(form, visitor, state, task_number)
    except ReviewReassignedError:
        return RESULT_TEXTS[REASSIGNED]
    except DecisionConflictError:
        return RESULT_TEXTS[ALREADY_DECIDED]
    except UnknownReviewError:
        return ERASED_TEXT
    except RefusalError as error:
        return capitalize_first(str(error))
    return ""
