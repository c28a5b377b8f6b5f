"""Review pages: one case, without hints, answered by a key; and adjudications."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from api.console.page.form import Form, SignedForm
from api.console.page.own_settings import store_single_keys
from api.console.page.page import redirect_to, render_page
from api.console.page.page_context import HOME, CurrentVisitor, Visitor, get_safe_path
from api.console.page.text import encode_segment
from api.console.reviews.review_case import (
    build_decided_case,
    build_review_case,
    get_section,
)
from api.console.reviews.review_form import (
    RESULT_TEXTS,
    ReviewPageContext,
    find_undo_obstacle,
    load_review_state,
    load_todays_decisions,
    redirect_to_next,
    render_review_page,
    submit_decision_form,
)
from rollout.core.errors import UnknownVersionError
from rollout.core.records.reviews import (
    NoConflictError,
    ReviewStillOpenError,
    UnknownCaseError,
)
from rollout.core.scope.permissions import Permission
from rollout.services.engine.rollout_state import RolloutState
from rollout.services.reviews.own_decisions import load_own_decision
from rollout.services.reviews.review_queue import (
    ReviewerTasks,
    count_pending_reviews,
    load_adjudication_cases,
)
from rollout.services.reviews.reviews import (
    claim_page_task,
    claim_reviews,
    load_own_reviews,
    release_own_claims,
    request_adjudication,
)

router = APIRouter()
TaskNumber = Annotated[int, Path(ge=1, lt=2**53)]
ResultQuery = Annotated[str, Query(max_length=20)]
RolloutQuery = Annotated[str, Query(max_length=200)]


@router.get("/review")
def show_review_choice(
    request: Request, visitor: CurrentVisitor, rollout: RolloutQuery = ""
) -> Response:
    """Redirect to the only rollout with pending cases, else show a choice.

    With `rollout`, as in messages, it shows that one and claims nothing: browsers open previews.
    """
    review_totals = count_pending_reviews(visitor.service, visitor.caller, visitor.at)
    if rollout:
        review_totals = {name: n for name, n in review_totals.items() if name == rollout}
    elif len(review_totals) == 1:
        return redirect_to(f"/rollouts/{encode_segment(next(iter(review_totals)))}/review")
    can_review = visitor.has_permission_somewhere(Permission.REVIEW)
    return render_page(request, visitor, "review_choice", waiting=review_totals, may=can_review)


@router.post("/review/keys")
def save_key_setting(form: SignedForm) -> Response:
    """Switch single keys on or off for this browser."""
    response = redirect_to(get_safe_path(form.get_text("to")).removeprefix(HOME))
    store_single_keys(response, form.get_text("keys"))
    return response


@router.get("/rollouts/{rollout}/review")
def show_next_case(
    request: Request, visitor: CurrentVisitor, rollout: str, after: ResultQuery = ""
) -> Response:
    """Show the visitor's claimed case, or claim the next one."""
    state = load_review_state(visitor, rollout)
    page_task = claim_page_task(
        visitor.service.database,
        visitor.caller,
        state,
        visitor.at,
        claim_time=visitor.wall_time,
    )
    context = ReviewPageContext(
        text=RESULT_TEXTS.get(after, ""),
        to_go=page_task.to_go,
        to_settle=page_task.to_settle,
    )
    task = page_task.task
    review_case = None if task is None else build_review_case(task, state, visitor.at)
    return render_review_page(request, visitor, state, review_case, context)


@router.post("/rollouts/{rollout}/review/leave")
def leave_review(_form: SignedForm, visitor: CurrentVisitor, rollout: str) -> Response:
    """Release all claims and redirect to the overview."""
    state = load_review_state(visitor, rollout)
    database = visitor.service.database
    release_own_claims(database, visitor.caller, state, visitor.at, visitor.wall_time)
    return redirect_to("/")


@router.post("/rollouts/{rollout}/review/{number}")
def submit_answer(
    request: Request, form: SignedForm, visitor: CurrentVisitor, rollout: str, number: TaskNumber
) -> Response:
    """Store a decision and continue with the next case."""
    return submit_decision_form(request, form, visitor, rollout, number, "review")


@router.get("/rollouts/{rollout}/review/{number}")
def show_decided_case(
    request: Request, visitor: CurrentVisitor, rollout: str, number: TaskNumber
) -> Response:
    """Show a case that the visitor decided, if the decision can change."""
    state = load_review_state(visitor, rollout)
    return render_decided_case(request, visitor, state, number)


def render_decided_case(
    request: Request, visitor: Visitor, state: RolloutState, task_number: int
) -> Response:
    """Return the page of a decided case, or why its decision is final."""
    database, caller = visitor.service.database, visitor.caller
    claimed_tasks = load_own_reviews(
        database, caller, state, visitor.at, visitor.wall_time, task_number=task_number
    ).tasks
    if claimed_tasks:
        return redirect_to_next(state.rollout.name, get_section(claimed_tasks[0].kind))
    decision = load_own_decision(database, caller, state, task_number)
    reason = find_undo_obstacle(
        decision, load_todays_decisions(visitor, state).recent_decisions, visitor.at
    )
    review_case = build_decided_case(decision, state)
    if not reason:
        return render_review_page(request, visitor, state, review_case, ReviewPageContext())
    return render_page(
        request,
        visitor,
        "review_final",
        review_case=review_case,
        reason=reason,
        rollout=state.rollout.name,
    )


QueryText = Annotated[str, Query(max_length=1_000)]
SETTLED = "settled"
REQUESTED_TEXT = "A reviewer who has not decided it will adjudicate."
NONE_LEFT_TEXT = "No more conflicts for you."
FIELD_BY_ERROR = {
    UnknownCaseError: "case",
    ReviewStillOpenError: "case",
    NoConflictError: "case",
    UnknownVersionError: "version",
}


@router.get("/rollouts/{rollout}/adjudication")
def show_conflicts(
    request: Request,
    visitor: CurrentVisitor,
    rollout: str,
    case: QueryText = "",
    after: QueryText = "",
) -> Response:
    """Show the visitor's pending conflicts, and to operators all open ones."""
    return _render_conflicts(request, visitor, rollout, after=after, typed={"case": case})


@router.post("/rollouts/{rollout}/adjudication")
def submit_adjudication_request(
    request: Request, form: SignedForm, visitor: CurrentVisitor, rollout: str
) -> Response:
    """Request adjudication of a case that nobody may still judge blind."""
    state = _load_state(visitor, rollout)
    key, version = form.get_text("case"), form.get_text("version")
    try:
        request_adjudication(
            visitor.service.database, visitor.caller, state, key, version or None, visitor.at
        )
    except tuple(FIELD_BY_ERROR) as error:
        errors = {FIELD_BY_ERROR[type(error)]: _describe_error(error, form)}
        typed = {"case": key, "version": version}
        return _render_conflicts(request, visitor, rollout, typed=typed, errors=errors)
    return redirect_to(f"/rollouts/{encode_segment(rollout)}/adjudication?after=asked")


@router.get("/rollouts/{rollout}/adjudication/next")
def show_next_conflict(
    request: Request, visitor: CurrentVisitor, rollout: str, after: QueryText = ""
) -> Response:
    """Show the visitor's claimed conflict, or claim the next one."""
    state = load_review_state(visitor, rollout)
    database, caller = visitor.service.database, visitor.caller
    own_tasks = claim_reviews(
        database, caller, state, visitor.at, kind="adjudicate", claim_time=visitor.wall_time
    )
    task = next((task for task in own_tasks.tasks if task.kind == "adjudicate"), None)
    if task is None:
        return redirect_to(
            f"/rollouts/{encode_segment(rollout)}/adjudication?after={after or SETTLED}"
        )
    context = ReviewPageContext(text=RESULT_TEXTS.get(after, ""), to_go=_count_conflicts(own_tasks))
    return render_review_page(
        request, visitor, state, build_review_case(task, state, visitor.at), context
    )


@router.get("/rollouts/{rollout}/adjudication/{number}")
def show_settled_case(
    request: Request, visitor: CurrentVisitor, rollout: str, number: TaskNumber
) -> Response:
    """Show a case that the visitor has adjudicated, if the decision can change."""
    return render_decided_case(request, visitor, load_review_state(visitor, rollout), number)


@router.post("/rollouts/{rollout}/adjudication/{number}")
def submit_settlement(
    request: Request, form: SignedForm, visitor: CurrentVisitor, rollout: str, number: TaskNumber
) -> Response:
    """Store the adjudication and continue with the next conflict."""
    return submit_decision_form(request, form, visitor, rollout, number, "adjudication")


def _render_conflicts(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    after: str = "",
    typed: dict[str, str],
    errors: dict[str, str] | None = None,
) -> Response:
    service, caller = visitor.service, visitor.caller
    state = _load_state(visitor, rollout)
    can_review = caller.has_permission_somewhere(Permission.REVIEW, rollout)
    can_operate = caller.has_permission_somewhere(Permission.OPERATE, rollout)
    own_tasks = (
        load_own_reviews(service.database, caller, state, visitor.at, visitor.wall_time)
        if can_review
        else None
    )
    open_conflicts = (
        load_adjudication_cases(
            service.database, caller, state, visitor.at, claim_time=visitor.wall_time
        )
        if can_operate
        else ()
    )
    return render_page(
        request,
        visitor,
        "adjudication",
        422 if errors else 200,
        rollout=rollout,
        reviews=can_review,
        operates=can_operate,
        pending_count=0 if own_tasks is None else _count_conflicts(own_tasks),
        conflicts=[
            (conflict, state.policy.get_timezone(conflict.case.site)) for conflict in open_conflicts
        ],
        versions=sorted(state.scope.versions),
        message={"asked": REQUESTED_TEXT, SETTLED: NONE_LEFT_TEXT, **RESULT_TEXTS}.get(after, ""),
        typed=typed,
        errors=errors or {},
    )


def _load_state(visitor: Visitor, rollout: str) -> RolloutState:
    """Return the rollout's state for reviewers and operators; refuse others."""
    if visitor.caller.has_permission_somewhere(Permission.OPERATE, rollout):
        return visitor.service.state_cache.load_rollout(rollout).state
    return load_review_state(visitor, rollout)


def _count_conflicts(own_tasks: ReviewerTasks) -> int:
    claimed_count = sum(task.kind == "adjudicate" for task in own_tasks.tasks)
    return claimed_count + own_tasks.waiting["adjudicate"]


def _describe_error(error: Exception, form: Form) -> str:
    """Describe what is wrong with the requested case or version."""
    case, version = form.get_text("case"), form.get_text("version")
    if isinstance(error, UnknownVersionError):
        return f"{version} has not answered this case; choose another version or none"
    if isinstance(error, ReviewStillOpenError):
        return "Reviewers may still decide this case blind; try again after that"
    if isinstance(error, NoConflictError):
        return str(error)
    if not case:
        return "Write the case's key, as on its page"
    return f"There is no case {case}; copy the key from its page"
