"""Review pages: one case, without hints, answered by a key; and adjudications, by the same form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from api.reviews.review_case import (
    UNSURE,
    AnswerForm,
    LeverQuestion,
    ReviewCase,
    build_answer_form,
    build_decided_case,
    build_picture_policy,
    build_review_case,
    describe_answers,
    get_section,
    list_remote_pictures,
)
from api.reviews.routes import DecisionRequest
from api.web_kit.page import (
    encode_segment,
    redirect_to,
    render_page,
    say_refusal,
    store_single_keys,
)
from api.web_kit.page_context import HOME, CurrentVisitor, Form, SignedForm, Visitor, get_safe_path
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.records.reviews import (
    DecisionConflictError,
    InvalidDecisionError,
    NoConflictError,
    ReviewReassignedError,
    ReviewStillOpenError,
    UnknownCaseError,
    check_started_at,
    compute_answer_deadline,
)
from rollout.engine.words.formatting import capitalize_first
from rollout.features.reviews.own_decisions import (
    OwnDecision,
    OwnDecisions,
    load_own_decision,
    load_own_decisions,
)
from rollout.features.reviews.reviews import (
    DecisionDraft,
    ReviewerTasks,
    claim_page_task,
    claim_reviews,
    count_pending_reviews,
    load_adjudication_cases,
    load_own_reviews,
    release_own_claims,
    request_adjudication,
    submit_decision,
)
from rollout.kernel.errors import RefusalError, UnknownVersionError
from rollout.kernel.units import Lever, format_label_set
from rollout.live.rollout_state import RolloutState

UNDO_PERIOD: Final = timedelta(seconds=30)
UNDO_COUNT: Final = 2
"""Number of latest decisions that can be undone."""

REVEALED_TEXT: Final = "You have seen the model's answer, so your decision is final."
ANSWERED_SINCE_TEXT: Final = "You have answered later cases since, so your decision is final."


def find_undo_obstacle(
    decision: OwnDecision, recent_decisions: Sequence[OwnDecision], at: datetime
) -> str:
    """Return why a decision can't be undone any more, or "".

    Args:
        decision: the decision.
        recent_decisions: the reviewer's latest decisions, newest first.
        at: now.
    """
    if decision.is_final:
        return REVEALED_TEXT
    is_recent = any(
        decision.task_number == recent.task_number for recent in recent_decisions[:UNDO_COUNT]
    )
    return "" if is_recent or at - decision.at <= UNDO_PERIOD else ANSWERED_SINCE_TEXT


def find_undoable_decision(
    recent_decisions: Sequence[OwnDecision], at: datetime, *, undone_task: int | None = None
) -> OwnDecision | None:
    """Return the decision that Undo brings back, or None.

    Args:
        recent_decisions: the reviewer's latest decisions, newest first.
        at: now.
        undone_task: a task that was brought back already; the one before it is next.
    """
    task_numbers = [recent.task_number for recent in recent_decisions]
    start = task_numbers.index(undone_task) + 1 if undone_task in task_numbers else 0
    decision = next(iter(recent_decisions[start:]), None)
    return (
        None if decision is None or find_undo_obstacle(decision, recent_decisions, at) else decision
    )


NOTE: Final = "note"
FIRST_ANSWER: Final = "answer-1"
NOTE_TOO_LONG_TEXT: Final = "Shorten the note to 2,000 characters; it is stored with your answer"
NO_ANSWER_TEXT: Final = "Choose an answer, or Unsure"


class InvalidReviewFormError(RefusalError):
    """The form has no valid decision; `errors` has messages by field id."""

    code = "bad-decision"

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("; ".join(errors.values()))
        self.errors = errors


@dataclass(frozen=True, slots=True)
class TypedDecision:
    """Values typed into the form: answers by field, note, start time."""

    answers: Mapping[str, str]
    note: str
    begun_at: str
    supersedes: str


def read_typed_decision(form: Form, questions: Sequence[LeverQuestion]) -> TypedDecision:
    """Return the typed values, to show them again."""
    answers = {
        question.field: format_label_set({*form.get_values(question.field)})
        if question.many
        else form.get_values(question.field)[-1]
        for question in questions
        if form.get_values(question.field)
    }
    return TypedDecision(
        answers, form.get_raw_text(NOTE), form.get_text("began"), form.get_text("supersedes")
    )


def parse_decision(form: Form, levers: Sequence[Lever], at: datetime) -> DecisionDraft:
    """Parse the decision of a form.

    Raises:
        InvalidReviewFormError: an answer is missing or not one of the lever's; the note is too
            long.
    """
    answer_form = build_answer_form(levers)
    typed = read_typed_decision(form, answer_form.questions)
    is_unsure = form.has_field(UNSURE)
    answers = {} if is_unsure else _read_answers(answer_form, typed)
    if not is_unsure and not answers:
        raise InvalidReviewFormError({FIRST_ANSWER: NO_ANSWER_TEXT})
    try:
        return DecisionRequest.model_validate(
            {
                "answers": dict(answers),
                "unsure": is_unsure,
                "note": typed.note.strip() or None,
                "started_at": _parse_begun(typed.begun_at, at),
                "supersedes": typed.supersedes or None,
            }
        ).to_draft()
    except ValidationError as error:
        fields = {str(fault["loc"][0]) for fault in error.errors()}
        raise InvalidReviewFormError(
            {NOTE: NOTE_TOO_LONG_TEXT} if NOTE in fields else {FIRST_ANSWER: NO_ANSWER_TEXT}
        ) from error


def describe_errors(error: InvalidDecisionError, answer_form: AnswerForm) -> Mapping[str, str]:
    """Return the service's error by field id."""
    for question in answer_form.questions:
        if error.field == f"answers.{question.lever}":
            expected = question.range or "one of these"
            if question.many:
                expected = "some of these, or only None of them"
            return {
                f"answer-{question.position}": f"Give {capitalize_first(question.lever)} {expected}"
            }
    return {NOTE if error.field == NOTE else FIRST_ANSWER: say_refusal(error)}


def _read_answers(answer_form: AnswerForm, typed: TypedDecision) -> Mapping[str, str]:
    """Return the answers by lever; an empty field means unsure on that lever."""
    typed_answers = (
        (question, typed.answers.get(question.field, "")) for question in answer_form.questions
    )
    return {
        question.lever: answer.strip() if question.number else answer
        for question, answer in typed_answers
        if answer.strip()
    }


def _parse_begun(text: str, at: datetime) -> datetime | None:
    """Return when the form was opened; None if the value is implausible."""
    try:
        began_at = datetime.fromisoformat(text)
        check_started_at(began_at, at)
    except (
        ValueError,
        TypeError,
        InvalidDecisionError,
    ):  # no time, no timezone, or far from now
        return None
    return began_at


RECENT_PERIOD: Final = timedelta(minutes=2)
REASSIGNED, ALREADY_DECIDED, FINAL = "gone", "stood", "fixed"
RESULT_TEXTS: Final[Mapping[str, str]] = {
    REASSIGNED: (
        "That case was given to another reviewer or already answered. Your answer was not stored."
    ),
    ALREADY_DECIDED: "You already answered that case. Use Undo to change your answer.",
    FINAL: "That answer can no longer be changed.",
    "left": "Your claims are released.",
}
"""Results of the last decision, by the word in the next page's URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewPageContext:
    """What the page shows around a case.

    Attributes:
        text: one line about the previous decision.
        to_go: pending cases, including this one; None if not shown.
        to_settle: the visitor's pending conflicts.
        typed: typed values of a refused form, with `errors`.
    """

    text: str = ""
    to_go: int | None = None
    to_settle: int = 0
    typed: TypedDecision | None = None
    errors: Mapping[str, str] = field(default_factory=dict)


def load_review_state(visitor: Visitor, rollout: str) -> RolloutState:
    """Load the rollout's state for a reviewer.

    Raises:
        UnknownRolloutError: the visitor can't see the rollout.
        NotAllowedError: the visitor is no reviewer in it.
    """
    require_permission(visitor.caller, Permission.REVIEW, rollout)
    return visitor.service.state_cache.load_rollout(rollout).state


def load_todays_decisions(visitor: Visitor, state: RolloutState) -> OwnDecisions:
    """Return the visitor's decisions since their midnight, and the latest ones."""
    local_time = visitor.at.astimezone(ZoneInfo(visitor.zone))
    since = local_time.replace(hour=0, minute=0, second=0, microsecond=0)
    return load_own_decisions(visitor.service.database, visitor.caller, state, since)


def render_review_page(
    request: Request,
    visitor: Visitor,
    state: RolloutState,
    review_case: ReviewCase | None,
    context: ReviewPageContext,
) -> Response:
    """Return the page of a case, or of an empty queue."""
    media = [] if review_case is None else [review_case.media]
    response = render_page(
        request,
        None,
        "review",
        422 if context.errors else 200,
        **_build_page_values(visitor, state, review_case, context),
    )
    response.headers["Content-Security-Policy"] = build_picture_policy(list_remote_pictures(media))
    return response


def _build_page_values(
    visitor: Visitor,
    state: RolloutState,
    review_case: ReviewCase | None,
    context: ReviewPageContext,
) -> dict[str, Any]:
    """Return what the templates of a case and of the parts around it need."""
    own_decisions = load_todays_decisions(visitor, state)
    undone_task = (
        None if review_case is None or review_case.revision is None else review_case.review
    )
    return {
        "reader": visitor,
        "page_token": visitor.page_token,
        "rollout": state.rollout.name,
        "answer_form": build_answer_form(state.policy.levers),
        "review_case": review_case,
        "context": context,
        "errors": context.errors,
        "typed": _get_typed(review_case, context, visitor.at),
        "own": own_decisions,
        "undo": _build_undo(own_decisions, visitor, state, undone_task),
        "missed_deadline": _find_missed_deadline(own_decisions, state, visitor.at)
        if undone_task is None
        else None,
    }


def submit_decision_form(
    request: Request, form: Form, visitor: Visitor, rollout: str, task_number: int, section: str
) -> Response:
    """Store the decision of a form and continue with the next case.

    The form names its review task, so resubmitting it stores nothing twice and never
    answers another case.
    """
    state = load_review_state(visitor, rollout)
    try:
        _store_decision(form, visitor, state, task_number)
    except InvalidReviewFormError as error:
        return _render_rejected_form(request, form, visitor, state, task_number, error.errors)
    except InvalidDecisionError as error:
        return _render_rejected_form(
            request,
            form,
            visitor,
            state,
            task_number,
            describe_errors(error, build_answer_form(state.policy.levers)),
        )
    except ReviewReassignedError:
        return redirect_to_next(rollout, section, REASSIGNED)
    except DecisionConflictError:
        return redirect_to_next(
            rollout, section, FINAL if form.get_text("supersedes") else ALREADY_DECIDED
        )
    return redirect_to_next(rollout, section)


def _store_decision(form: Form, visitor: Visitor, state: RolloutState, task_number: int) -> None:
    """Store the decision of a form."""
    database, levers = visitor.service.database, state.policy.levers
    decision = parse_decision(form, levers, visitor.at)
    submit_decision(database, visitor.caller, state, task_number, decision, visitor.at)


def redirect_to_next(rollout: str, section: str, result: str = "") -> RedirectResponse:
    """Redirect to the next case of a queue, with the result of the last."""
    queue_path = "review" if section == "review" else "adjudication/next"
    return redirect_to(
        f"/rollouts/{encode_segment(rollout)}/{queue_path}" + (f"?after={result}" if result else "")
    )


def _render_rejected_form(
    request: Request,
    form: Form,
    visitor: Visitor,
    state: RolloutState,
    task_number: int,
    errors: Mapping[str, str],
) -> Response:
    """Show the case again with the typed values, unless it was reassigned."""
    database, caller = visitor.service.database, visitor.caller
    claimed_tasks = load_own_reviews(
        database, caller, state, visitor.at, visitor.wall_time, task_number=task_number
    ).tasks
    task = next(iter(claimed_tasks), None)
    typed = read_typed_decision(form, build_answer_form(state.policy.levers).questions)
    context = ReviewPageContext(typed=typed, errors=errors)
    if task is not None:
        review_case = build_review_case(task, state, visitor.at)
    else:
        decision = load_own_decision(database, caller, state, task_number)
        review_case = build_decided_case(decision, state)
    return render_review_page(request, visitor, state, review_case, context)


def _get_typed(
    review_case: ReviewCase | None, context: ReviewPageContext, at: datetime
) -> TypedDecision:
    if context.typed is not None:
        return context.typed
    revision = (
        "" if review_case is None or review_case.revision is None else str(review_case.revision)
    )
    return TypedDecision(
        {}, "" if review_case is None else review_case.note, at.isoformat(), revision
    )


def _build_undo(
    own_decisions: OwnDecisions, visitor: Visitor, state: RolloutState, undone_task: int | None
) -> Mapping[str, str] | None:
    """Return text and path of the decision that Undo brings back."""
    own_decision = find_undoable_decision(
        own_decisions.recent_decisions, visitor.at, undone_task=undone_task
    )
    if own_decision is None:
        return None
    text = describe_answers(state.policy.levers, own_decision.decision.answers)
    return {
        "says": text,
        "at": f"/rollouts/{encode_segment(state.rollout.name)}"
        f"/{get_section(own_decision.kind)}/{own_decision.task_number}",
    }


def _find_missed_deadline(
    own_decisions: OwnDecisions, state: RolloutState, at: datetime
) -> Mapping[str, object] | None:
    """Return the deadline that the last decision has just missed."""
    if (
        not own_decisions.recent_decisions
        or at - own_decisions.recent_decisions[0].at > RECENT_PERIOD
    ):
        return None
    last = own_decisions.recent_decisions[0]
    started_at = last.decision.started_at
    deadline = compute_answer_deadline(state.policy, last.case.occurred_at)
    if deadline is None or started_at is None or not started_at < deadline <= last.at:
        return None
    return {"by": deadline, "zone": state.policy.get_timezone(last.case.site)}


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
        return say_refusal(error)
    if not case:
        return "Write the case's key, as on its page"
    return f"There is no case {case}; copy the key from its page"
