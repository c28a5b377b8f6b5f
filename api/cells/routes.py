"""Rollouts and their schedule, cells, and the scope: which version may act where, now or at a time.

The schedule has waves, freezes, ends of grants and trials, reports and drills.
"""

from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth import (
    Anyone,
    Caller,
    CurrentTime,
    Permission,
    Reader,
    RequirePermission,
    ServiceDependency,
)
from api.cells.schemas import CellDetails, CellList, Timeline, TimelineSpan
from api.priority_threads import run_in_time
from api.schema_forms import (
    LATER,
    After,
    AttributeForm,
    ItemList,
    Limit,
    add_fields_of,
    build_responses,
    decode_number,
)
from rollout.engine.decide.assignment_table import ScopeTable, build_scope_table
from rollout.engine.decide.policy_changes import list_names
from rollout.engine.decide.scope import CellState
from rollout.features.assignments.assignments import (
    ClientHead,
    Snapshot,
    load_snapshot,
    load_snapshot_at,
)
from rollout.features.cells.cells import load_cell, load_cells
from rollout.features.cells.overview import (
    DEFAULT_DAYS,
    MAX_DAYS,
    RolloutOverview,
    RolloutSchedule,
    load_cell_timeline,
    load_rollout_overview,
    load_rollouts,
    load_schedule,
)
from rollout.features.reports.inputs.cell_facts import TimelineRequest
from rollout.kernel.calendar.instants import Cell
from rollout.live.service import Service

router = APIRouter(prefix="/v1/rollouts/{rollout}/cells", tags=["cells"])


@router.get("", operation_id="listCells", summary="List cells")
def list_cells(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
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
    caller: Reader,
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
    caller: Reader,
    span: Annotated[TimelineSpan, Query()],
) -> Timeline:
    """Return who decided, how versions agreed, and what happened: by default six weeks.

    The span begins with the first record at the earliest. If you may be asked for blind reviews at
    the site, agreement moves in batches. Fails with 404 if there is no such cell or version.
    """
    request = TimelineRequest(Cell(site, window), span.since, span.until, span.version)
    return Timeline.model_validate(load_cell_timeline(service, caller, rollout, request, at=now))


SCOPE: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 41,
    "hash": "9f2c",
    "era": 1,
    "head_code": "1.1.6b1f",
    "scope_at": "2027-06-01T11:45:00+00:00",
    "policy": {"number": 3, "hash": "77ab", "text": "rollout: bear-alarm\n…"},
    "versions": [
        {
            "id": "v7",
            "other_names": [],
            "first_used_at": "2027-05-01T00:00:00+00:00",
            "retired": False,
        }
    ],
    "cells": [
        {
            "site": "creek",
            "window": "day",
            "version": "v7",
            "grants": [
                {
                    "stage": "supervised",
                    "since": "2027-05-20T00:00:00+00:00",
                    "until": "2027-08-18T00:00:00+00:00",
                }
            ],
            "suspended_by": [],
        }
    ],
    "stops": [{"id": "S-1", "cells": [{"site": "creek", "window": "night"}]}],
    "sites": [{"site": "creek", "lease": 43200.0, "permit": "1.local.41.1811851200000000.43200.5"}],
    "salt": "00" * 32,
    "issued_at": "2027-06-01T12:00:00+00:00",
}


class ScopePolicy(BaseModel):
    """The policy in force. `hash` is the SHA-256 of `text`."""

    number: int
    hash: str
    text: str


class ScopeVersion(BaseModel):
    """A model version known to the rollout.

    It has the same grants under its `other_names`, whose declared content is the same.
    """

    id: str
    other_names: list[str] = []
    first_used_at: datetime
    retired: bool


class ScopeGrant(BaseModel):
    """A stage that is granted for a time span."""

    stage: str
    since: datetime
    until: datetime


class ScopeFloorGrant(ScopeGrant):
    """A stage that is granted for a time span, for cases of at least some confidence."""

    confidence_floor: float


class ScopeCell(BaseModel):
    """The grants of one version in a cell, and the guards that suspend them.

    If the policy has several confidence floors, `grants` is empty, and `floor_grants` has them: a
    human decides cases below the highest floor of the acting stage's grant and those after it.

    If the policy has `evidence.familiar`, a human decides cases with a value that is not in
    `familiar`, by attribute or combination.
    """

    site: str
    window: str
    version: str
    grants: list[ScopeGrant]
    floor_grants: list[ScopeFloorGrant] = Field(
        default=[], description="empty unless the policy has several confidence floors"
    )
    suspended_by: list[str]
    familiar: dict[str, list[str]] = {}


class ScopeStop(BaseModel):
    """An active stop and its cells."""

    id: str
    cells: list[Cell]


class ScopeSite(BaseModel):
    """A site's lease and the permit to send back with actions there."""

    site: str
    lease: float | None = Field(
        description="seconds, on a clock that continues during sleep; null if there is no lease"
    )
    permit: str | None


class ScopeSnapshot(BaseModel, json_schema_extra={"example": SCOPE}):
    """Which version may act at which stage in each cell, at one revision."""

    rollout: str
    revision: int
    hash: str
    era: int = Field(description="1, and one more after each restore of the database")
    head_code: str = Field(
        description="send it back as `ledger_code`, with revision and hash; empty for a past `at`"
    )
    scope_at: datetime | None = Field(
        description="the ledger's time; never treat the current time as earlier than this"
    )
    policy: ScopePolicy | None
    versions: list[ScopeVersion]
    cells: list[ScopeCell]
    stops: list[ScopeStop]
    sites: list[ScopeSite]
    salt: str | None = Field(
        description="hexadecimal; null for a past `at` or without permission at all sites"
    )
    issued_at: datetime | None = Field(description="null for a past `at`")
    table: ScopeTable | None = Field(
        default=None,
        description="the scope as a table, if `form=table-1` asks for it; null without a lease",
    )


def build_table_scope(snapshot: Snapshot) -> ScopeSnapshot:
    """Return the schema of a snapshot with a table in place of the policy and what it rules."""
    body, table = build_scope(snapshot), None
    if snapshot.policy is not None and snapshot.issued_at is not None and snapshot.leases:
        table = build_scope_table(
            snapshot.scope, snapshot.policy, snapshot.leases, snapshot.issued_at
        )
    policy = None if body.policy is None else body.policy.model_copy(update={"text": ""})
    empty: dict[str, Any] = {"versions": [], "cells": [], "stops": []}
    return body.model_copy(update={"policy": policy, "table": table, **empty})


def build_scope(snapshot: Snapshot) -> ScopeSnapshot:
    """Return the schema of a snapshot."""
    scope = snapshot.scope
    policy = ScopePolicy(
        number=scope.policy_number, hash=scope.policy_hash, text=snapshot.policy_text
    )
    return ScopeSnapshot(
        rollout=snapshot.rollout,
        revision=snapshot.revision,
        hash=snapshot.hash,
        era=scope.era,
        head_code=snapshot.head_code,
        scope_at=scope.at,
        policy=None if snapshot.policy is None else policy,
        versions=[
            ScopeVersion(
                id=version_item.id,
                other_names=list(list_names(scope, version_item.id)[1:]),
                first_used_at=version_item.first_seen,
                retired=version_item.retired,
            )
            for version_item in scope.versions.values()
        ],
        cells=[
            _build_cell(cell, version, state, snapshot) for cell, version, state in snapshot.cells
        ],
        stops=[
            ScopeStop(id=stop.id, cells=cells)
            for stop in scope.stops.values()
            if (cells := [cell for cell in sorted(stop.cells) if cell.site in snapshot.sites])
        ],
        sites=[_build_site(snapshot, site) for site in snapshot.sites],
        salt=None if snapshot.salt is None else snapshot.salt.hex(),
        issued_at=snapshot.issued_at,
    )


def _build_site(snapshot: Snapshot, site: str) -> ScopeSite:
    lease = snapshot.leases.get(site)
    seconds = None if lease is None else lease.total_seconds()
    return ScopeSite(site=site, lease=seconds, permit=snapshot.permits.get(site))


def _build_cell(cell: Cell, version: str, state: CellState, snapshot: Snapshot) -> ScopeCell:
    return ScopeCell(
        site=cell.site,
        window=cell.window,
        version=version,
        grants=[
            ScopeGrant(stage=grant.stage, since=grant.since, until=grant.until)
            for grant in state.grants
            if not grant.floors
        ],
        floor_grants=[
            ScopeFloorGrant(
                stage=grant.stage,
                since=grant.since,
                until=grant.until,
                confidence_floor=float(grant.floors[0]),
            )
            for grant in state.grants
            if grant.floors
        ],
        suspended_by=sorted(state.suspended_by),
        familiar=_list_familiar_values(cell, version, snapshot),
    )


def _list_familiar_values(cell: Cell, version: str, snapshot: Snapshot) -> dict[str, list[str]]:
    """Return the familiar values by attribute, sorted; empty if the policy asks for none."""
    rule = None if snapshot.policy is None else snapshot.policy.evidence.familiar
    if rule is None:
        return {}
    values = snapshot.scope.get_cell_values(cell, version).familiar_values
    return {
        attribute: [text for name, text in values if name == attribute]
        for attribute in sorted(rule.attribute_ids)
    }


scope_router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["scope"])
UNCHANGED_RESPONSES: dict[int | str, dict[str, Any]] = {
    304: {"description": "unchanged; the lease is not renewed"}
}
Name = Annotated[str, Field(max_length=200)]


class ScopeQuery(BaseModel, extra="forbid"):
    """The requested sites and time, and the ledger head that the client knows."""

    site: list[Name] = Field(
        default=[], max_length=1_000, description="default: all sites you can read"
    )
    at: AwareDatetime | None = Field(default=None, description="a past time; default: now")
    form: Literal["text", "table-1"] = Field(
        default="text",
        description="`table-1`: with `table`, and without the policy's text, versions, cells and"
        " stops",
    )
    ledger_revision: int = Field(
        default=0, ge=0, lt=2**53, description="revision of the newest ledger row that you know"
    )
    ledger_hash: str = Field(default="", max_length=100, description="hash of that row")
    ledger_code: str = Field(
        default="", max_length=100, description="`head_code` that came with them"
    )


@scope_router.get(
    "/scope",
    operation_id="getScope",
    summary="Get a snapshot of what is allowed where",
    response_model=ScopeSnapshot,
    responses=UNCHANGED_RESPONSES,
)
async def get_scope(
    rollout: str,
    request: Request,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ_SCOPE)],
    query: Annotated[ScopeQuery, Query()],
    if_none_match: Annotated[str | None, Header(max_length=300)] = None,
) -> Response:
    """Return which version may act at which stage in each cell.

    With the snapshot, a client decides locally as the server would. If you have permission to
    request assignments at all sites, the snapshot includes the salt and, for each site, a lease and
    a permit. Send the permit back with each action.

    Use the snapshot for at most `lease` seconds. Count them from before you sent the request, on a
    monotonic clock that continues during sleep. After that, humans decide. A 304 response does not
    renew the lease. While the database does not respond, the response within a second is 503.
    """
    work = partial(_respond, service, caller, rollout, query, if_none_match)
    if query.at is not None:  # reads the whole ledger, and gives no lease
        return await run_in_threadpool(work)
    return await run_in_time(request.scope["state"], work)


def _respond(
    service: Service, caller: Caller, rollout: str, query: ScopeQuery, if_none_match: str | None
) -> Response:
    snapshot = _load_snapshot(service, caller, rollout, query)
    tag = _compute_etag(snapshot, query.form)
    headers = {"ETag": tag, "Cache-Control": "no-store" if snapshot.salt else "no-cache"}
    if if_none_match is not None and tag in {t.strip() for t in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    build = build_scope if query.form == "text" else build_table_scope
    body = build(snapshot).model_dump_json()
    return Response(body, headers=headers, media_type="application/json")


def _load_snapshot(
    service: Service, caller: Caller, rollout: str, scope_query: ScopeQuery
) -> Snapshot:
    sites = tuple(dict.fromkeys(scope_query.site))
    if scope_query.at is not None:
        return load_snapshot_at(service, caller, rollout, sites, scope_query.at)
    return load_snapshot(
        service,
        caller,
        rollout,
        sites,
        ClientHead(scope_query.ledger_revision, scope_query.ledger_hash, scope_query.ledger_code),
    )


def _compute_etag(snapshot: Snapshot, form: str) -> str:
    """Return the ETag of a snapshot; lease and time of issue don't change it."""
    content = (
        form,
        snapshot.scope.era,
        snapshot.revision,
        snapshot.hash,
        snapshot.sites,
        snapshot.salt is not None,
        sorted(snapshot.scope.stops),  # a stop may hold before the ledger has it
    )
    return f'"{sha256(repr(content).encode()).hexdigest()[:32]}"'


rollouts_router = APIRouter(prefix="/v1/rollouts", tags=["rollouts"])
EXAMPLE: dict[str, Any] = {
    "name": "bear-alarm",
    "revision": 41,
    "hash": "9f2c",
    "policy": 3,
    "at": "2027-06-01T12:00:00+00:00",
    "ticked_at": "2027-06-01T11:45:00+00:00",
    "pending": 12,
    "open_proposals": 1,
    "stops": 0,
    "undelivered": 0,
}


@add_fields_of(RolloutOverview)
class RolloutStatus(AttributeForm, json_schema_extra={"example": EXAMPLE}):
    """A rollout: the head of its ledger and the number of open items."""


class RolloutList(ItemList[RolloutStatus], json_schema_extra={"example": {"items": [EXAMPLE]}}):
    """The rollouts that the caller can read."""


@rollouts_router.get("", operation_id="listRollouts", summary="List rollouts")
def list_rollouts(service: ServiceDependency, caller: Anyone) -> RolloutList:
    """Return the rollouts that you can read, sorted by name."""
    rollouts = load_rollouts(service.database, caller)
    return RolloutList(items=[RolloutStatus.model_validate(item) for item in rollouts])


@rollouts_router.get("/{rollout}", operation_id="getRollout", summary="Get a rollout")
def get_rollout(
    rollout: str,
    service: ServiceDependency,
    caller: Reader,
) -> RolloutStatus:
    """Return a rollout with its ledger head and its open items."""
    return RolloutStatus.model_validate(load_rollout_overview(service.database, caller, rollout))


schedule_router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["rollouts"])
SCHEDULE_EXAMPLE = {
    "items": [
        {
            "kind": "grant",
            "at": LATER,
            "until": None,
            "sites": ["creek"],
            "window": "day",
            "subject": "supervised",
            "text": "supervised ends at creek by day",
        }
    ],
    "until": LATER,
}


@schedule_router.get(
    "/schedule",
    operation_id="getSchedule",
    summary="Get the schedule of a rollout",
    responses=build_responses(SCHEDULE_EXAMPLE),
)
def get_schedule(
    rollout: str,
    service: ServiceDependency,
    now: CurrentTime,
    caller: Reader,
    days: Annotated[int, Query(ge=1, le=MAX_DAYS, description="how far ahead")] = DEFAULT_DAYS,
) -> RolloutSchedule:
    """Return what will happen in the next days at the sites that you may read.

    Freezes, openings of waves, ends of trials, ends of grants, expiring proposals,
    approved proposals that wait for a date, reports, and stop drills: at a site with a grant the
    next is due 30 days after the last. It assumes that nothing else happens before: a widening, for
    example, moves the opening of the next wave.
    """
    return load_schedule(service, caller, rollout, at=now, days=days)
