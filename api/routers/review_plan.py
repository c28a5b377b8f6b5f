"""The review plan: where the next reviews help most."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.schemas.examples import build_responses
from rollout.features.cells.overview import LiveReviewPlan, load_review_plan
from rollout.features.reports.figures.review_plan import DEFAULT_DECISIONS, MAX_DECISIONS

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["cells"])
CELL = {
    "site": "creek",
    "window": "night",
    "version": "v7",
    "stage": "shadow",
    "to": "supervised",
    "floor": "",
    "outlook": "on course",
    "reason": "agreement at least 95 %",
    "judged": 100,
    "per_day": 14.0,
    "decisions_p50": 219,
    "decisions_p90": 1830,
    "days": 15.6,
    "ever_chance": 0.93,
    "decisions_per_opening": 293.0,
    "cheapest_decisions": 113,
    "planned": 113,
    "opening_chance": 0.3,
    "changes": [],
}
EXAMPLE = {
    "rollout": "bears",
    "revision": 31,
    "is_batched": False,
    "plan": {
        "decisions": 1000,
        "cells": [CELL],
        "expected_openings": 0.3,
        "unplanned": 887,
        "closed_cells": 0,
    },
}


@router.get(
    "/review-plan",
    operation_id="getReviewPlan",
    summary="Get where the next reviews help most",
    responses=build_responses(EXAMPLE),
)
def get_review_plan(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    decisions: Annotated[int, Query(alias="next", ge=1, le=MAX_DECISIONS)] = DEFAULT_DECISIONS,
    site: Annotated[str | None, Query(max_length=200, pattern="^[^\\x00]*$")] = None,
) -> LiveReviewPlan:
    """Return what each cell needs for its next stage, those that need fewest decisions first.

    Figures are simulated from the counted evidence, at the present rate: `decisions_p50` and
    `decisions_p90` are the further decisions after which half and 90 % of the runs have opened. A
    cell is `hopeless` if it ever opens with a chance below 5 %; one without decided units has no
    figures.
    Stops, suspensions, freezes, waves and approvals are not included. Where you may be asked for
    blind reviews, evidence moves in batches of 20 decided units.
    """
    return load_review_plan(service, caller, rollout, at=now, decisions=decisions, site=site)
