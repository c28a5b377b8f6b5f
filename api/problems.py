"""Refusals as RFC 9457 problems: one table of status numbers, one shape, always a next step."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from rollout.core.errors import Refusal
from rollout.store.database.errors import UNKEPT, StoreError

MEDIA_TYPE = "application/problem+json"
MOST_FAULTS = 20
LONGEST = 300  # letters of one fault: what was sent is not sent back at length

STATUS: Mapping[str, int] = {
    "unauthenticated": 401,
    "not-allowed": 403,
    "own-proposal": 403,
    "not-eligible": 403,
    "service-account-key": 403,
    "cross-site": 403,
    "unknown-rollout": 404,
    "unknown-proposal": 404,
    "unknown-cell": 404,
    "unknown-version": 404,
    "unknown-incident": 404,
    "unknown-case": 404,
    "unknown-review": 404,
    "unknown-user": 404,
    "unknown-key": 404,
    "unknown-stop": 404,
    "unknown-report": 404,
    "unknown-delivery": 404,
    "unknown-channel": 404,
    "already-approved": 409,
    "name-taken": 409,
    "last-admin": 409,
    "first-admin-exists": 409,
    "evidence-changed": 409,
    "proposal-closed": 409,
    "stale-revision": 409,
    "conflict": 409,
    "review-gone": 409,
    "case-still-open": 409,
    "delivery-sent": 409,
    "not-revealed": 403,
    "not-narrower": 409,
    "unknown-site": 404,
    "ledger-rolled-back": 409,
    "clock-skew": 503,
    "too-large": 413,
    "policy-refused": 422,
    "user-refused": 422,
    "nothing-to-report": 422,
    "older-report": 409,
    "refused": 422,
    "too-many-requests": 429,
    "identity-provider": 502,
    "database-busy": 503,
    "outcome-unknown": 503,
    "ledger-form": 503,
    "schema-mismatch": 503,
    "unsafe-database": 503,
    "database-error": 503,
}
"""The HTTP status of each refusal's code. A code that is not listed is 422."""

log = logging.getLogger("rollout.api")


class FieldFault(BaseModel):
    """One thing that is wrong with a body or a parameter."""

    where: str
    text: str


class Problem(BaseModel):
    """Why something was not done, and what to do next."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "/problems/own-proposal",
                "title": "Own proposal",
                "status": 403,
                "detail": "ana raised P-1; ask another operator to approve it",
                "code": "own-proposal",
                "faults": [],
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    faults: list[FieldFault] = Field(default_factory=list)


def problem(
    code: str, detail: str, status: int | None = None, faults: Sequence[FieldFault] = ()
) -> JSONResponse:
    """Return the answer for a refusal.

    Args:
        code: names the refusal for programs, as `own-proposal`.
        detail: what is wrong and what to do next, for people.
        status: by default as the table says.
        faults: each thing that is wrong with a body.
    """
    number = STATUS.get(code, 422) if status is None else status
    content = Problem(
        type=f"/problems/{code}",
        title=code.replace("-", " ").capitalize(),
        status=number,
        detail=_whole(detail),
        code=code,
        faults=[FieldFault(where=_whole(fault.where), text=_whole(fault.text)) for fault in faults],
    )
    headers = {"Retry-After": "1"} if number in {429, 503} else {}
    if number == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = content.model_dump(mode="json")
    return JSONResponse(body, number, headers, media_type=MEDIA_TYPE)


def _whole(text: str) -> str:
    """Return text that can be sent: what was given may hold half letters, and is told of."""
    return text.encode("utf-8", "replace").decode()


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's `responses` says of the problems that it may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


EVERYWHERE = problems(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
"""What any route under /v1 may answer with."""


def install(app: FastAPI) -> None:
    """Answer every refusal and fault of `app` with a problem."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(StoreError, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(UNKEPT, _unkept)
    app.add_exception_handler(Exception, _broken)


def _refused(_request: Request, error: Exception) -> JSONResponse:
    lines: tuple[str, ...] = getattr(error, "faults", ())  # of a policy: one line for each
    faults = [_line_fault(line) for line in lines[:MOST_FAULTS]]
    text = "\n".join(line[:LONGEST] for line in lines[:MOST_FAULTS]) if lines else str(error)
    return problem(getattr(error, "code", "refused"), text, faults=faults)


def _line_fault(line: str) -> FieldFault:
    """Return a fault of a policy: its line and field, what is wrong and what would be right."""
    location, field, text = (*line.split(": ", 2), "", "")[:3]
    return FieldFault(
        where=f"line {location.rpartition(':')[2]}, {field}"[:LONGEST], text=text[:LONGEST]
    )


def _malformed(_request: Request, error: Exception) -> JSONResponse:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [
        FieldFault(where=_where(error_item["loc"]), text=str(error_item["msg"])[:LONGEST])
        for error_item in errors
    ]
    detail = "the request is not of its form; each fault says where"
    return problem("malformed", detail, 422, faults[:MOST_FAULTS])


def _where(place: Sequence[object]) -> str:
    return ".".join(str(part) for part in place)[:LONGEST]


def _http(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    phrase = HTTPStatus(status).phrase
    code = {404: "not-found", 405: "method-not-allowed"}.get(status, phrase.lower())
    answer = problem(code.replace(" ", "-"), f"{phrase}; /docs lists what there is", status)
    for name, value in (getattr(error, "headers", None) or {}).items():
        answer.headers[name] = value
    return answer


def _unkept(_request: Request, _error: Exception) -> JSONResponse:
    """Answer for what PostgreSQL takes in no text: NUL; nothing of the request is kept."""
    return problem("malformed", "a text holds what no database keeps, as NUL; leave it out", 422)


def _broken(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(
        "internal-error", "a fault of the service; whether it was done is not known", 500
    )
