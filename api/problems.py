"""Errors as RFC 9457 problems: one table of statuses, and one schema."""

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import ExceptionHandler, Scope

from api.metrics import ROUTE_KEY, UNMATCHED_ROUTE
from rollout.data.database.append_failures import StoreError, UnstorableValueError
from rollout.kernel.errors import RefusalError

if TYPE_CHECKING:
    from rollout.kernel.policy_files.reader import PolicyFault

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 20
MAX_FAULT_LENGTH = 300  # characters: responses don't repeat long input

STATUS_BY_CODE: Mapping[str, int] = {
    "unauthenticated": 401,
    "code-required": 401,
    "not-allowed": 403,
    "second-factor-required": 403,
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
    "unknown-subject": 404,
    "unknown-delivery": 404,
    "unknown-channel": 404,
    "upgrade-unfinished": 409,
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
    "no-conflict": 409,
    "delivery-sent": 409,
    "not-narrower": 409,
    "unknown-site": 404,
    "ledger-rolled-back": 409,
    "clock-skew": 503,
    "no-autonomy": 503,
    "stop-not-stored": 503,
    "unreadable-rows": 503,
    "secret-key": 503,
    "checkpoint": 409,
    "too-large": 413,
    "policy-refused": 422,
    "user-refused": 422,
    "erasure-refused": 422,
    "nothing-to-report": 422,
    "unreadable-report": 409,
    "refused": 422,
    "too-many-requests": 429,
    "identity-provider": 502,
    "busy": 503,
    "database-busy": 503,
    "database-unavailable": 503,
    "outcome-unknown": 503,
    "schema-mismatch": 503,
    "unsafe-database": 503,
    "database-error": 503,
}
"""HTTP status of each error code; the default is 422."""


def find_status(code: str) -> int:
    """Return the HTTP status of an error code."""
    return STATUS_BY_CODE.get(code, 422)


log = logging.getLogger("rollout.api")


def find_route(scope: Scope) -> str:
    """Return the route of a request: its path can hold names, and letters that forge log lines."""
    route = getattr(scope.get("route"), "path", "") or scope["state"].get(ROUTE_KEY)
    return str(route or UNMATCHED_ROUTE)


class FieldFault(BaseModel):
    """One invalid field of a body, or one invalid parameter."""

    where: str
    text: str


class Problem(
    BaseModel,
    json_schema_extra={
        "example": {
            "type": "/problems/own-proposal",
            "title": "Own proposal",
            "status": 403,
            "detail": "ana raised P-1; ask another operator to approve it",
            "code": "own-proposal",
            "faults": [],
        }
    },
):
    """An error: what happened, where, and what to do next."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    stored: bool | None = Field(
        default=None, description="of a stop or narrowing: whether every replica gets it already"
    )
    faults: list[FieldFault] = Field(default_factory=list)


def build_problem(
    code: str,
    detail: str,
    status: int | None = None,
    faults: Sequence[FieldFault] = (),
    *,
    is_stored: bool | None = None,
) -> JSONResponse:
    """Return the response for an error.

    Args:
        code: identifies the error for programs, such as `own-proposal`.
        detail: what is wrong and what to do next, for humans.
        status: by default the one of `STATUS_BY_CODE`.
        faults: the invalid parts of a body.
        is_stored: whether the database has a stop that the ledger lacks.
    """
    number = find_status(code) if status is None else status
    content = Problem(
        type=f"/problems/{code}",
        title=code.replace("-", " ").capitalize(),
        status=number,
        detail=_to_sendable(detail),
        code=code,
        stored=is_stored,
        faults=[
            FieldFault(where=_to_sendable(fault.where), text=_to_sendable(fault.text))
            for fault in faults
        ],
    )
    headers = build_retry_headers(number)
    if number == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    body = content.model_dump(mode="json", exclude_none=True)
    return JSONResponse(body, number, headers, media_type=MEDIA_TYPE)


def build_retry_headers(status: int) -> dict[str, str]:
    """Return the header that says when to try again, for statuses that pass."""
    return {"Retry-After": "1"} if status in {429, 503} else {}


def _to_sendable(text: str) -> str:
    """Return text without lone surrogates, which UTF-8 can't encode."""
    return text.encode("utf-8", "replace").decode()


def build_problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return a route's OpenAPI `responses` for problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in statuses
    }


COMMON_RESPONSES = build_problem_responses(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503)
"""The problems that every route under /v1 can return."""


def install_handlers(app: FastAPI) -> None:
    """Install handlers that return every error as a problem."""
    handlers: dict[type[Exception], ExceptionHandler] = {
        RefusalError: _handle_refusal,
        StoreError: _handle_refusal,
        RequestValidationError: _handle_invalid_request,
        HTTPException: _handle_http_error,
        UnstorableValueError: _handle_unstorable_text,
        Exception: _handle_unexpected_error,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _handle_refusal(_request: Request, error: Exception) -> JSONResponse:
    faults: tuple[PolicyFault, ...] = getattr(error, "faults", ())[:MAX_FAULTS]
    text = "\n".join(str(fault)[:MAX_FAULT_LENGTH] for fault in faults) or str(error)
    is_stored: bool | None = getattr(error, "is_stored", None)  # of a stop that the ledger lacks
    problem = build_problem(
        getattr(error, "code", "refused"),
        text,
        faults=[
            FieldFault(
                where=f"line {fault.line}, {fault.field}"[:MAX_FAULT_LENGTH],
                text=fault.text[:MAX_FAULT_LENGTH],
            )
            for fault in faults
        ],
        is_stored=is_stored,
    )
    if hasattr(error, "retry_after"):  # in seconds
        problem.headers["Retry-After"] = str(error.retry_after)
    return problem


def _handle_invalid_request(_request: Request, error: Exception) -> JSONResponse:
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    faults = [
        FieldFault(
            where=".".join(map(str, error_item["loc"]))[:MAX_FAULT_LENGTH],
            text=str(error_item["msg"])[:MAX_FAULT_LENGTH],
        )
        for error_item in errors
    ]
    detail = "the request is not of its form; each fault says where"
    return build_problem("malformed", detail, 422, faults[:MAX_FAULTS])


def _handle_http_error(_request: Request, error: Exception) -> JSONResponse:
    status = error.status_code if isinstance(error, HTTPException) else 500
    phrase = HTTPStatus(status).phrase
    code = {404: "not-found", 405: "method-not-allowed"}.get(status, phrase.lower())
    answer = build_problem(code.replace(" ", "-"), f"{phrase}; /docs lists what there is", status)
    for name, value in (getattr(error, "headers", None) or {}).items():
        answer.headers[name] = value
    return answer


def _handle_unstorable_text(_request: Request, _error: Exception) -> JSONResponse:
    """Return the response for text that PostgreSQL rejects, such as NUL."""
    return build_problem(
        "malformed", "a text holds what no database keeps, as NUL; leave it out", 422
    )


def _handle_unexpected_error(request: Request, error: Exception) -> JSONResponse:
    log.error("%s %s failed", request.method, find_route(request.scope), exc_info=error)
    return build_problem(
        "internal-error", "a fault of the service; whether it was done is not known", 500
    )
