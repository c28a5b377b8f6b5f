"""The page of a rollout's review plan, and the form by which its admins declare planted cases.

The plan says where the next reviews help most.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from api.web_kit.page import add_full_stop, render_page, say_refusal
from api.web_kit.page_context import CurrentVisitor, Form, SignedForm, Visitor, find_reason_fault
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.engine.words.formatting import capitalize_first
from rollout.features.cells.overview import TooManyCellsError, load_review_plan
from rollout.features.records.planted_cases import (
    MAX_CASES,
    PlantingRefusedError,
    PlantingRequest,
    PlantingResult,
    declare_planted_cases,
)
from rollout.features.reports.figures.review_plan import DEFAULT_DECISIONS, MAX_DECISIONS
from rollout.features.reports.pages.text_report import (
    COLUMNS,
    build_plan_row,
    describe_method,
    describe_review_plan,
)
from rollout.kernel.policy.policy import Policy
from rollout.kernel.populations import PLANTED_TERMS

router = APIRouter()
TITLES: Final = tuple(capitalize_first(column) for column in COLUMNS)


@router.get("/rollouts/{rollout}/review-plan")
def show_review_plan(
    request: Request,
    visitor: CurrentVisitor,
    rollout: str,
    decisions: Annotated[int, Query(alias="next", ge=1, le=MAX_DECISIONS)] = DEFAULT_DECISIONS,
    site: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Show what each cell needs for its next stage, cheapest first."""
    require_permission(visitor.caller, Permission.READ, rollout)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    sites = [
        policy_site.id
        for policy_site in policy.sites
        if visitor.caller.has_permission(Permission.READ, rollout, policy_site.id)
    ]
    fields: dict[str, Any] = {
        "rollout": rollout,
        "decisions": decisions,
        "site": site,
        "sites": sites,
    }
    fields |= {"titles": TITLES, "methods": tuple(describe_method())}
    try:
        live = load_review_plan(
            visitor.service,
            visitor.caller,
            rollout,
            at=visitor.at,
            decisions=decisions,
            site=site or None,
        )
    except TooManyCellsError:
        return render_page(
            request,
            visitor,
            "review_plan",
            sentences=("This rollout has too many cells for one plan: choose a site.",),
            rows=(),
            batch=None,
            **fields,
        )
    return render_page(
        request,
        visitor,
        "review_plan",
        sentences=tuple(describe_review_plan(live.plan)),
        rows=[(row, build_plan_row(row), _write_reason(row.reason)) for row in live.plan.cells],
        batch=BATCH_SIZE if live.is_batched else None,
        **fields,
    )


def _write_reason(reason: str) -> str:
    return add_full_stop(capitalize_first(reason)) if reason else ""


UNPROCESSABLE: Final = 422


@router.get("/rollouts/{rollout}/settings/planted-cases")
def show_planting_form(request: Request, rollout: str, visitor: CurrentVisitor) -> Response:
    """Show the form for declaring planted cases."""
    return _render_form(request, visitor, rollout)


@router.post("/rollouts/{rollout}/settings/planted-cases")
def submit_planted_cases(
    request: Request, rollout: str, visitor: CurrentVisitor, form: SignedForm
) -> Response:
    """Declare the form's cases, and show how many are new."""
    keys, reason = _read_keys(form), form.get_text("reason")
    errors = {"keys": _find_keys_fault(keys), "reason": find_reason_fault(reason, "plant")}
    errors = {name: text for name, text in errors.items() if text}
    if errors:
        return _render_form(request, visitor, rollout, form=form, errors=errors)
    try:
        result = declare_planted_cases(
            visitor.service.database,
            visitor.caller,
            rollout,
            PlantingRequest(keys, reason),
            visitor.at,
        )
    except PlantingRefusedError as error:
        errors = {"keys": say_refusal(error)}
        return _render_form(request, visitor, rollout, form=form, errors=errors)
    visitor.service.state_cache.invalidate(rollout)
    return _render_form(request, visitor, rollout, result=result)


def _read_keys(form: Form) -> frozenset[str]:
    """Return the keys, one a line, without the spaces that a copied line often ends with."""
    lines = (line.strip() for line in form.get_raw_text("keys").split("\n"))
    return frozenset(filter(None, lines))


def _find_keys_fault(keys: frozenset[str]) -> str:
    if not keys:
        return "Give the keys that the records will have, one a line"
    if len(keys) > MAX_CASES:
        return f"Declare at most {MAX_CASES:,} cases at once; these are {len(keys):,}"
    return ""


def _render_form(
    request: Request,
    visitor: Visitor,
    rollout: str,
    *,
    form: Form | None = None,
    errors: dict[str, str] | None = None,
    result: PlantingResult | None = None,
) -> Response:
    require_permission(visitor.caller, Permission.ADMINISTER, rollout)
    policy = visitor.service.state_cache.reload_rollout(rollout).state.policy
    typed = {}
    if form is not None:
        typed = {"keys": form.get_raw_text("keys"), "reason": form.get_text("reason")}
    return render_page(
        request,
        visitor,
        "planted_cases",
        UNPROCESSABLE if errors else 200,
        rollout=rollout,
        conditions=list_planted_conditions(policy),
        planted_terms=PLANTED_TERMS,
        max_cases=MAX_CASES,
        errors=errors or {},
        typed=typed,
        result=result,
    )


def list_planted_conditions(policy: Policy) -> list[str]:
    """Return what gates require of planted cases, once each."""
    texts = (
        f"{gate.to}: {condition}"
        for gate in policy.gates
        for condition in gate.require
        if condition.population.is_planted
    )
    return list(dict.fromkeys(texts))
