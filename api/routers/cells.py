"""The cells: what is allowed where, on which evidence, and what comes next."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, cursor, number_of
from api.schemas.cells import CellOut, CellsOut
from rollout.core.places import Cell
from rollout.services.cells import cell_of, cells_of

router = APIRouter(prefix="/v1/rollouts/{rollout}/cells", tags=["cells"])


@router.get("", summary="List the cells")
def all_cells(
    rollout: str,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.READ)],
    after: After = None,
    limit: Limit = 100,
) -> CellsOut:
    """Return what is allowed now in each cell, and what decides about its next step."""
    start = number_of(after) or 0
    page = cells_of(service, who, rollout, at=now, after=start, limit=limit)
    further = None if page.after is None else cursor(str(page.after))
    return CellsOut(
        rollout=page.rollout,
        revision=page.revision,
        hash=page.hash,
        policy=page.policy,
        items=list(page.items),
        next=further,
    )


@router.get("/{site}/{window}", summary="Show a cell")
def one_cell(
    rollout: str,
    site: str,
    window: str,
    service: Served,
    now: Now,
    who: Annotated[Caller, By(Act.READ)],
) -> CellOut:
    """Return a cell with its evidence against the lines, its guards and its history."""
    found = cell_of(service, who, rollout, Cell(site, window), at=now)
    return CellOut.model_validate(found)
