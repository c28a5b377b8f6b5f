"""The audit ledger: read its rows and verify its hashes."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.auth import Caller, Permission, RequirePermission, ServiceDependency
from api.paging import Limit
from api.schemas.derived import add_fields_of
from api.schemas.examples import CELL, build_responses
from rollout.engine.ledger.checkpoints import Checkpoint
from rollout.engine.ledger.ledger import CanonicalRow
from rollout.features.ledger.checkpoints import sign_head
from rollout.features.ledger.ledger_reader import (
    LedgerVerification,
    iterate_ledger_lines,
    verify_stored_ledger,
)

router = APIRouter(prefix="/v1/rollouts/{rollout}/ledger", tags=["ledger"])
NDJSON, JSON = "application/x-ndjson", "application/json"
MAX_REVISION = 2**31 - 1  # the largest integer of the database
Revision = Annotated[int, Query(ge=0, le=MAX_REVISION)]
ROW: dict[str, Any] = {
    "rollout": "bear-alarm",
    "revision": 42,
    "at": 1811851200000000,
    "kind": "Narrowed",
    "actor": "bo",
    "body": {**CELL, "version": "v7", "from_stage": "autonomous", "to_stage": "supervised"},
    "access_head": 12,
    "slot": None,
    "previous": "51d0…",
    "hash": "9f2c…",
}
VERIFIED: dict[str, Any] = {
    "rollout": "bear-alarm",
    "rows": 42,
    "head": "9f2c…",
    "intact": True,
    "fault": "",
    "head_matches": None,
}


CHECKPOINT: dict[str, Any] = {
    "ledger": "bear-alarm",
    "revision": 42,
    "hash": "9f2c…",
    "at": 1811851200000000,
    "key": "03a1…",
    "signature": "d75a…",
}


@add_fields_of(Checkpoint)
class LedgerCheckpoint(BaseModel):
    """A signed head of a ledger. `at` is in microseconds since 1970 (UTC).

    The signature is of `rollout-checkpoint-1`, a line end, and the canonical JSON of `at`, `hash`,
    `ledger` and `revision`. `key` and `signature` are in hex.
    """

    at: int


class LedgerRowText(BaseModel):
    """A text that the ledger stores outside the hashed row, with its salt."""

    salt: str
    text: str


@add_fields_of(CanonicalRow, "names")
class LedgerRow(BaseModel):
    """A row as stored. `at` is in microseconds since 1970 (UTC); see `docs/reference/ledger.md`."""

    hash: str
    texts: dict[str, LedgerRowText] = Field(default_factory=dict)


class LedgerRowList(BaseModel):
    """A page of rows. `next` is the next page's `after`, or null on the last page."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [ROW], "next": 42}})

    items: list[LedgerRow]
    next: int | None


LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "one row on each line; a page if `Accept` includes JSON",
        "content": {NDJSON: {"schema": {"type": "string"}, "example": json.dumps(ROW) + "\n"}},
    }
}


@router.get(
    "",
    operation_id="readLedger",
    summary="Read the audit ledger",
    response_model=LedgerRowList,
    responses=LINES,
)
def read_ledger(
    rollout: str,
    request: Request,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    after: Revision = 0,
    limit: Limit = 1_000,
) -> Response:
    """Return ledger rows after a revision, oldest first.

    By default all rows are streamed as NDJSON, which `rollout ledger verify` accepts. With `Accept:
    application/json` the response is one page. Rows appended during the request are not included.
    """
    if JSON not in request.headers.get("accept", ""):
        lines = iterate_ledger_lines(service, caller, rollout, after=after)
        return StreamingResponse(_end_lines(lines), media_type=NDJSON)
    rows = [
        json.loads(line)
        for line in iterate_ledger_lines(service, caller, rollout, after=after, limit=limit)
    ]
    next_cursor = rows[-1]["revision"] if len(rows) == limit else None
    page = LedgerRowList(items=[LedgerRow.model_validate(row) for row in rows], next=next_cursor)
    return Response(page.model_dump_json(exclude_unset=True), media_type=JSON)


def _end_lines(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


@router.get(
    "/checkpoint",
    operation_id="signLedgerHead",
    summary="Get a signed head of the audit ledger",
    responses=build_responses(CHECKPOINT),
)
def sign_ledger_head(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
) -> LedgerCheckpoint:
    """Return the ledger's newest revision and hash, signed with Ed25519. Keep it elsewhere.

    A ledger that is rewritten later no longer has this row: `rollout ledger verify --checkpoint`
    and `rollout doctor --heads` find that. Without a key of the service the answer is 409.
    """
    signer = service.checkpoints.require_signer()
    return LedgerCheckpoint.model_validate_json(
        sign_head(service, caller, rollout, signer).format()
    )


@router.get(
    "/verification",
    operation_id="verifyLedger",
    summary="Verify the audit ledger",
    responses=build_responses(VERIFIED),
)
def verify_ledger(
    rollout: str,
    service: ServiceDependency,
    caller: Annotated[Caller, RequirePermission(Permission.READ)],
    revision: Annotated[int | None, Query(ge=1, le=MAX_REVISION)] = None,
    row_hash: Annotated[str | None, Query(alias="hash", max_length=64)] = None,
) -> LedgerVerification:
    """Recompute every hash of the ledger and return the result.

    A truncated or completely rewritten ledger can be valid in itself. To detect that, pass the
    `revision` and `hash` of a row that you saved earlier.
    """
    return verify_stored_ledger(service, caller, rollout, revision=revision, row_hash=row_hash)
