"""The ledger: every row as it is stored, and whether the chain is whole."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from api.deps import Act, By, Caller, Served
from api.paging import Limit
from api.schemas.examples import CELL, answers
from rollout.services.ledgers import LedgerVerification, ledger_lines, verification

router = APIRouter(prefix="/v1/rollouts/{rollout}/ledger", tags=["ledger"])
NDJSON, JSON = "application/x-ndjson", "application/json"
MOST_REVISION = 2**31 - 1  # what the database can hold
Revision = Annotated[int, Query(ge=0, le=MOST_REVISION)]
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


class LedgerRowText(BaseModel):
    """A typed text with the salt of its hash, outside the hashed row."""

    salt: str
    text: str


class LedgerRow(BaseModel):
    """A row as it was written; times are in microseconds since 1970, UTC: see `docs/audit.md`.

    A row of form 1 has `house` in the place of `access_head`, and neither `slot` nor `texts`.
    """

    rollout: str
    revision: int
    at: int
    kind: str
    actor: str
    body: dict[str, Any]
    previous: str
    hash: str
    access_head: int | None = None
    slot: int | None = None
    texts: dict[str, LedgerRowText] = Field(default_factory=dict)
    house: int | None = None


class LedgerRowList(BaseModel):
    """Some rows; `next` is the `after` of the next page, null at the end."""

    model_config = ConfigDict(json_schema_extra={"example": {"items": [ROW], "next": 42}})

    items: list[LedgerRow]
    next: int | None


LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "a row a line; as a page where JSON is asked for",
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
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    after: Revision = 0,
    limit: Limit = 1_000,
) -> Response:
    """Return the rows after a revision: all of them as NDJSON, or a page with `Accept: {JSON}`.

    The lines are what `rollout ledger verify` reads; rows that come meanwhile are left out.
    """
    if JSON not in request.headers.get("accept", ""):
        lines = ledger_lines(service, who, rollout, after=after)
        return StreamingResponse(_ended(lines), media_type=NDJSON)
    rows = [
        json.loads(line) for line in ledger_lines(service, who, rollout, after=after, limit=limit)
    ]
    further = rows[-1]["revision"] if len(rows) == limit else None
    page = LedgerRowList(items=[LedgerRow.model_validate(row) for row in rows], next=further)
    return Response(page.model_dump_json(exclude_unset=True), media_type=JSON)


def _ended(lines: Iterable[str]) -> Iterator[str]:
    return (f"{line}\n" for line in lines)


@router.get(
    "/verification",
    operation_id="verifyLedger",
    summary="Verify the audit ledger",
    responses=answers(VERIFIED),
)
def verify_ledger(
    rollout: str,
    service: Served,
    who: Annotated[Caller, By(Act.READ)],
    revision: Annotated[int | None, Query(ge=1, le=MOST_REVISION)] = None,
    row_hash: Annotated[str | None, Query(alias="hash", max_length=64)] = None,
) -> LedgerVerification:
    """Recompute every link. Give a row seen earlier: only so does a chain cut short show."""
    return verification(service, who, rollout, revision=revision, row_hash=row_hash)
