"""Erasing cases and names, on a page for admins."""

from typing import Final

from fastapi import APIRouter, Request, Response

from api.web_kit.page import render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.features.cells.overview import load_rollouts
from rollout.features.erasure.erasure import (
    ERASURES,
    ErasureRefusedError,
    ErasureRequest,
    ErasureResult,
    describe_erasure,
    erase_user,
)
from rollout.kernel.errors import RefusalError

router = APIRouter()
USER: Final = "user"
KINDS: Final = {
    "case": "A case, by its key",
    "episode": "An episode with its cases, by its key",
    "reviewer": "A reviewer's name at the sources of the rollout",
    USER: "A user with their account, in all rollouts",
}
MAX_KEY_LENGTH: Final = 200
FIELDS: Final = ("kind", "rollout", "key", "reason")


@router.get("/settings/erasures")
def show_erasures(request: Request, visitor: CurrentVisitor) -> Response:
    """Show the form of erasures."""
    return _render_form(request, visitor)


@router.post("/settings/erasures")
def submit_erasure(request: Request, visitor: CurrentVisitor, form: SignedForm) -> Response:
    """Erase what the form names, and show the result."""
    try:
        result = _erase(visitor, form)
    except RefusalError as error:
        return _render_form(request, visitor, form=form, error=error)
    return _render_form(request, visitor, result=result)


def _erase(visitor: Visitor, form: Form) -> ErasureResult:
    if not form.has_field("final"):
        raise ErasureRefusedError("tick that this is final; nothing was erased")
    kind, key = form.get_text("kind"), form.get_text("key")[:MAX_KEY_LENGTH]
    rollout = "" if kind == USER else form.get_text("rollout")
    request = ErasureRequest(visitor.caller, rollout, form.get_text("reason"), visitor.wall_time)
    if kind == USER:
        return erase_user(
            visitor.service.database,
            request,
            key,
            requires_second_factor=visitor.service.requires_second_factor,
        )
    if kind not in ERASURES or not rollout or not key:
        raise ErasureRefusedError("choose what to erase, with its rollout and key")
    return ERASURES[kind](visitor.service.database, request, key)


def _render_form(
    request: Request,
    visitor: Visitor,
    *,
    form: Form | None = None,
    error: RefusalError | None = None,
    result: ErasureResult | None = None,
) -> Response:
    require_permission(visitor.caller, Permission.ADMINISTER, "")
    rollouts = load_rollouts(visitor.service.database, visitor.caller)
    return render_page(
        request,
        visitor,
        "erasures",
        422 if error else 200,
        kinds=KINDS,
        rollouts=[rollout.name for rollout in rollouts],
        errors={} if error is None else {"": say_refusal(error)},
        typed={} if form is None else {name: form.get_text(name) for name in FIELDS},
        result_text="" if result is None else describe_erasure(result),
        warnings=() if result is None else result.warnings,
    )
