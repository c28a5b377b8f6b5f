"""Cells: their stage, evidence, guards and history."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.auth import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.paging import After, Limit, decode_number
from api.schemas.cells import CellDetails, CellList, Timeline, TimelineSpan
from rollout.features.cells.cells import load_cell, load_cells
from rollout.features.cells.timeline import load_cell_timeline
from rollout.features.reports.figures.timeline_parts import TimelineRequest
from rollout.kernel.calendar.sites import Cell

router = APIRouter(prefix="/v1/rollouts/{rollout}/cells", tags=["cells"])


@router.get("", operation_id="listCells", summary="List cells")
def list_cells(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    after: After = None,
    limit: Limit = 100,
) -> CellList:
    """Return the current state and the next step of each cell.

    The cells are in the order of the policy and limited to the sites you can read. Where you may be
    asked for blind reviews, evidence moves in batches of 20 decided units.
    """
    start = decode_number(after) or 0
    page = load_cells(service, caller, rollout, at=now, after=start, limit=limit)
    return CellList.model_validate(page)


@router.get("/{site}/{window}", operation_id="getCell", summary="Get a cell")
def get_cell(
    rollout: str,
    site: str,
    window: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> CellDetails:
    """Return a cell with its evidence, guards and history.

    If you may be asked for blind reviews at the site, evidence moves in batches of 20 decided
    units. Fails with 404 if the policy has no such cell.
    """
    status = load_cell(service, caller, rollout, Cell(site, window), at=now)
    return CellDetails.model_validate(status)


@router.get(
    "/{site}/{window}/timeline", operation_id="getCellTimeline", summary="Get a cell's timeline"
)
def get_cell_timeline(
    rollout: str,
    site: str,
    window: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    span: Annotated[TimelineSpan, Query()],
) -> Timeline:
    """Return who decided, how versions agreed, and what happened: by default six weeks.

    The span begins with the first record at the earliest. If you may be asked for blind reviews at
    the site, agreement moves in batches. Fails with 404 if there is no such cell or version.
    """
    request = TimelineRequest(Cell(site, window), span.since, span.until, span.version)
    timeline = load_cell_timeline(service, caller, rollout, request, at=now)
    return Timeline.model_validate(timeline)
