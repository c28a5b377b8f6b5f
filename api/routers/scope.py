"""The scope: a snapshot of which version may act where, now or at a time."""

from functools import partial
from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from api.answer_deadline import run_in_time
from api.deps import Caller, Permission, RequirePermission, ServiceDependency
from api.schemas.scope import ScopeSnapshot, build_scope
from rollout.services.assignments.client_heads import ClientHead
from rollout.services.assignments.snapshots import Snapshot, load_snapshot, load_snapshot_at
from rollout.services.engine.service import Service

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["scope"])
UNCHANGED_RESPONSES: dict[int | str, dict[str, Any]] = {
    304: {"description": "unchanged; the lease is not renewed"}
}
Name = Annotated[str, Field(max_length=200)]


class ScopeQuery(BaseModel):
    """The requested sites and time, and the ledger head that the client knows."""

    model_config = ConfigDict(extra="forbid")

    site: list[Name] = Field(
        default=[], max_length=1_000, description="default: all sites you can read"
    )
    at: AwareDatetime | None = Field(default=None, description="a past time; default: now")
    ledger_revision: int = Field(
        default=0, ge=0, lt=2**53, description="revision of the newest ledger row that you know"
    )
    ledger_hash: str = Field(default="", max_length=100, description="hash of that row")
    ledger_code: str = Field(
        default="", max_length=100, description="`head_code` that came with them"
    )


@router.get(
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
    tag = _compute_etag(snapshot)
    headers = {"ETag": tag, "Cache-Control": "no-store" if snapshot.salt else "no-cache"}
    if if_none_match is not None and tag in {t.strip() for t in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    body = build_scope(snapshot).model_dump_json()
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


def _compute_etag(snapshot: Snapshot) -> str:
    """Return the ETag of a snapshot; lease and time of issue don't change it."""
    content = (
        snapshot.scope.era,
        snapshot.revision,
        snapshot.hash,
        snapshot.sites,
        snapshot.salt is not None,
        sorted(snapshot.scope.stops),  # a stop may hold before the ledger has it
    )
    return f'"{sha256(repr(content).encode()).hexdigest()[:32]}"'
