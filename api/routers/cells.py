"""The cells: what is allowed where, on which evidence, and what comes next."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.schemas.cells import CellDetails, CellList
from rollout.core.calendar.sites import Cell
from rollout.services.cells.cells import cell_of, cells_of

router = APIRouter(prefix="/v1/rollouts/{rollout}/cells", tags=["cells"])


@router.get("", operation_id="listCells", summary="List cells")
def list_cells(
    rollout: str,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.READ)],
    after: After = None,
    limit: Limit = 100,
) -> CellList:
    """Return what is allowed now in each cell, and what decides about its next step."""
    start = number_of(after) or 0
    page = cells_of(service, who, rollout, at=now, after=start, limit=limit)
    further = None if page.after is None else cursor(str(page.after))
    return CellList(
        rollout=page.rollout,
        revision=page.revision,
        hash=page.hash,
        policy=page.policy,
        items=list(page.items),
        next=further,
    )


@router.get("/{site}/{window}", operation_id="getCell", summary="Get a cell")
def get_cell(
    rollout: str,
    site: str,
    window: str,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.READ)],
) -> CellDetails:
    """Return a cell with its evidence against the lines, its guards and its history."""
    found = cell_of(service, who, rollout, Cell(site, window), at=now)
    return CellDetails.model_validate(found)
