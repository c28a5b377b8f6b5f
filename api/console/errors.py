"""Refusals as pages: what was not done, why, and what to do next."""

import logging
from functools import partial
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.console.page.page import page
from api.console.page.page_context import SignInFirst, known, sign_in_for
from api.console.proposals.proposal_text import told
from api.priority_threads import at_once, narrows
from api.problems import STATUS
from rollout.core.errors import Refusal
from rollout.store.database.errors import UNKEPT, StoreError

log = logging.getLogger("rollout.console")
NO_PAGE = "There is no such page; the overview leads to those that there are."
NO_FORM = "The page was asked for in a form that it doesn't know; go back and load it again."
NUL = "A text holds what no database keeps, as NUL. Leave it out; nothing was done."
BROKEN = "A fault of the service; whether it was done is not known. Look before you try again."


def install(console: FastAPI) -> None:
    """Answer every refusal and fault of the console with a page."""
    console.add_exception_handler(SignInFirst, _sign_in)
    console.add_exception_handler(Refusal, _refused)
    console.add_exception_handler(StoreError, _refused)
    console.add_exception_handler(RequestValidationError, _malformed)
    console.add_exception_handler(HTTPException, _http)
    console.add_exception_handler(UNKEPT, _unkept)
    console.add_exception_handler(Exception, _broken)


async def _sign_in(_request: Request, error: Exception) -> Response:
    return_path = error.wanted if isinstance(error, SignInFirst) else ""
    return RedirectResponse(sign_in_for(return_path), HTTPStatus.SEE_OTHER)


async def _refused(request: Request, error: Exception) -> Response:
    code = str(getattr(error, "code", "refused"))
    return await _problem(request, str(error), STATUS.get(code, 422), code)


async def _malformed(request: Request, _error: Exception) -> Response:
    return await _problem(request, NO_FORM, 422)


async def _unkept(request: Request, _error: Exception) -> Response:
    return await _problem(request, NUL, 422)


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == HTTPStatus.NOT_FOUND:
        return await _problem(request, NO_PAGE, status)
    return await _problem(request, f"{HTTPStatus(status).phrase}. {NO_PAGE}", status)


async def _broken(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return await _problem(request, BROKEN, 500)


async def _problem(request: Request, says: str, status: int, code: str = "") -> Response:
    """Return the page that says it; of a stop on the threads that only narrowing takes."""
    title = HTTPStatus(status).phrase.capitalize()
    visitor = known(request)
    message = told(says, visitor.name if visitor else "")
    context = {"says": message, "title": title, "code": code}
    render = partial(page, request, visitor, "refused", status, **context)
    return await (at_once(render) if narrows(request.scope) else run_in_threadpool(render))
