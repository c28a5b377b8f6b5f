"""The page of a rollout's review plan, which says where the next reviews help most."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from api.web_kit.page import render_page
from api.web_kit.page_context import CurrentVisitor
from rollout.engine.decide.permissions import Permission, require_permission
from rollout.engine.evidence.evidence_view import BATCH_SIZE
from rollout.engine.words.formatting import capitalize_first, to_sentence
from rollout.features.cells.overview import TooManyCellsError, load_review_plan
from rollout.features.reports.figures.review_plan import DEFAULT_DECISIONS, MAX_DECISIONS
from rollout.features.reports.pages.text_report import (
    COLUMNS,
    build_plan_row,
    describe_method,
    describe_review_plan,
)

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
        rows=[
            (row, build_plan_row(row), row.reason and to_sentence(row.reason))
            for row in live.plan.cells
        ],
        batch=BATCH_SIZE if live.is_batched else None,
        **fields,
    )
