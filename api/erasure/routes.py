"""Erasing cases and names, and exporting what is stored about a user."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from api.auth import Admin, Anyone, ServiceDependency, WallTime
from api.schema_forms import AttributeForm, add_fields_of
from rollout.features.erasure.erasure import (
    ERASURES,
    MAX_REASON_LENGTH,
    ErasureRequest,
    ErasureResult,
    iterate_user_data,
)

router = APIRouter(tags=["erasure"])
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON_LENGTH, pattern="^[^\\x00]*$")]
Subject = Annotated[str, Field(min_length=1, max_length=200, pattern="^[^\\x00]*$")]
NDJSON = "application/x-ndjson"


class ContentErasureRequest(
    BaseModel,
    extra="forbid",
    json_schema_extra={
        "example": {"kind": "case", "key": "2027-06-01-0815", "reason": "request 12"}
    },
):
    """What to erase in a rollout, and why. The reason stays in the ledger: name nobody in it."""

    kind: Literal["case", "episode", "reviewer"]
    key: Subject
    reason: Reason


class UserErasureRequest(
    BaseModel, extra="forbid", json_schema_extra={"example": {"reason": "request 12"}}
):
    """Why a user is erased. The reason stays in the ledger: name nobody in it."""

    reason: Reason


@add_fields_of(ErasureResult)
class ErasureSummary(
    AttributeForm,
    json_schema_extra={
        "example": {
            "subject": "case",
            "cases": 1,
            "rows": 4,
            "reports": 2,
            "pseudonym": "",
            "warnings": [],
        }
    },
):
    """What was erased; all numbers are 0 if it was erased before.

    `warnings` names each gate and each stop for which users are missing since a user was erased.
    """


@router.post(
    "/v1/rollouts/{rollout}/erasures",
    operation_id="eraseContents",
    summary="Erase a case, an episode or a reviewer's name",
    response_model=ErasureSummary,
)
def erase_contents(
    rollout: str,
    body: ContentErasureRequest,
    service: ServiceDependency,
    caller: Admin,
    now: WallTime,
) -> ErasureResult:
    """Erase the contents of a case or of an episode's cases, or a reviewer's name.

    Counts, hashes and the ledger stay. Records that arrive later under the key or name are
    rejected. Repeating a request is safe; after a failure it continues. Requires the admin role for
    the whole rollout.
    """
    request = ErasureRequest(caller, rollout, body.reason, now)
    return ERASURES[body.kind](service.database, request, body.key)


@router.post(
    "/v1/users/{name}/erasure",
    operation_id="eraseUser",
    summary="Erase a user and their name in all rollouts",
    response_model=ErasureSummary,
)
def erase_user(
    name: str, body: UserErasureRequest, service: ServiceDependency, caller: Admin, now: WallTime
) -> ErasureResult:
    """Disable an account, and replace its name by a pseudonym everywhere.

    E-mail address, sign-ins, notes and typed reasons are deleted. This can't be undone. Requires
    the admin role.
    """
    from rollout.features.erasure import erasure

    return erasure.erase_user(
        service.database,
        ErasureRequest(caller, "", body.reason, now),
        name,
        requires_second_factor=service.requires_second_factor,
    )


@router.get(
    "/v1/users/{name}/data",
    operation_id="exportUserData",
    summary="Export what is stored about a user",
    response_class=StreamingResponse,
)
def export_user_data(
    name: str,
    service: ServiceDependency,
    caller: Anyone,
) -> StreamingResponse:
    """Return every row that names the user or reviewer, as NDJSON; `table` says what it is.

    Rows that others made about the user name these by account id, without what they typed. Users
    may export their own data; for others it requires the admin role.
    """
    rows = iterate_user_data(service.database, caller, name)
    return StreamingResponse(_format_lines(rows), media_type=NDJSON)


def _format_lines(rows: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"
