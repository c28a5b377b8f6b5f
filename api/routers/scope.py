"""The scope: a snapshot of what is allowed where, now or at any instant."""

from hashlib import sha256
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Served
from api.schemas.scope import ScopeSnapshot, scope_out
from rollout.services.assignments.assignments import Seen
from rollout.services.assignments.snapshots import Snapshot, snapshot, snapshot_at

router = APIRouter(prefix="/v1/rollouts/{rollout}", tags=["scope"])
UNCHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "unchanged since the ETag; no lease is renewed by it"}
}
Name = Annotated[str, Field(max_length=200)]


class ScopeQuery(BaseModel):
    """What is asked about, and what the asker has seen."""

    model_config = ConfigDict(extra="forbid")

    site: list[Name] = Field(default=[], max_length=1_000, description="by default all you may see")
    at: AwareDatetime | None = Field(default=None, description="of the past; by default now")
    ledger_revision: int = Field(
        default=0, ge=0, lt=2**53, description="the newest ledger row that you know"
    )
    ledger_hash: str = Field(default="", max_length=100, description="the hash of that row")


@router.get(
    "/scope",
    operation_id="getScope",
    summary="Get a snapshot of what is allowed where",
    response_model=ScopeSnapshot,
    responses=UNCHANGED,
)
def get_scope(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.WATCH)],
    wanted: Annotated[ScopeQuery, Query()],
    if_none_match: Annotated[str | None, Header(max_length=300)] = None,
) -> Response:
    """Return what is allowed where: enough to answer "who decides" as this server would.

    Who may ask about all its sites gets the salt, and for each site a lease and a permit that
    actions bring back. Decide by it for `lease` seconds, counted by a clock that counts sleep too
    from before the question was sent; then people decide. A lease is renewed by a whole answer.
    """
    made = _made(service, who, rollout, wanted)
    tag = _etag(made)
    headers = {"ETag": tag, "Cache-Control": "no-store" if made.salt else "no-cache"}
    if if_none_match is not None and tag in {t.strip() for t in if_none_match.split(",")}:
        return Response(status_code=304, headers=headers)
    body = scope_out(made).model_dump_json()
    return Response(body, headers=headers, media_type="application/json")


def _made(service: Served, who: Caller, rollout: str, wanted: ScopeQuery) -> Snapshot:
    sites = tuple(dict.fromkeys(wanted.site))
    if wanted.at is not None:
        return snapshot_at(service, who, rollout, sites, wanted.at)
    return snapshot(service, who, rollout, sites, Seen(wanted.ledger_revision, wanted.ledger_hash))


def _etag(made: Snapshot) -> str:
    """Name what a snapshot allows; when and for how long it was given is not in it."""
    content = (made.revision, made.hash, made.sites, made.salt is not None)
    return f'"{sha256(repr(content).encode()).hexdigest()[:32]}"'
