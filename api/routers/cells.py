"""Cells: their stage, evidence, guards and history."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Caller, CurrentTime, Permission, RequirePermission, ServiceDependency
from api.paging import After, Limit, decode_number, encode_number
from api.schemas.cells import CellDetails, CellList
from rollout.core.calendar.sites import Cell
from rollout.services.cells.cells import load_cell, load_cells

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

    The cells are in the order of the policy and limited to the sites you can read.
    """
    start = decode_number(after) or 0
    page = load_cells(service, caller, rollout, at=now, after=start, limit=limit)
    return CellList(
        rollout=page.rollout,
        revision=page.revision,
        hash=page.hash,
        policy=page.policy,
        items=list(page.items),
        next=encode_number(page.after),
    )


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

    Fails with 404 if the policy has no such cell.
    """
    status = load_cell(service, caller, rollout, Cell(site, window), at=now)
    return CellDetails.model_validate(status)
