"""The console application, mounted beside the API, and its error pages.

Pages call the same services as the API, as the signed-in user, so both enforce the same
permissions. An error page says what was not done, why, and what to do next.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from importlib import import_module
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from api.priority_threads import is_narrowing, run_with_priority
from api.problems import build_retry_headers, find_route, find_status
from api.web_kit import page as assets
from api.web_kit import page_context
from api.web_kit.additions import DemoConsole, OptionalPart
from api.web_kit.page import render_page, say_refusal
from api.web_kit.page_context import SignInRequiredError, build_sign_in_path, find_visitor
from rollout.data.database.append_failures import StoreError, UnstorableValueError
from rollout.features.incidents.incidents import CauseRuns
from rollout.features.reports.report_work import ReportWork
from rollout.features.uploads.upload_runs import UploadFolder, UploadRuns
from rollout.features.what_if.runs import WhatIfRuns
from rollout.kernel.errors import RefusalError
from rollout.live.service import Service
from rollout.live.state_cache import RevisionCache
from rollout.live.work.user_runs import UserRuns

log = logging.getLogger("rollout.console")
OVERVIEW_TEXT = "Go to the overview to find a page that answers."
NO_PAGE_TEXT = "This page doesn't exist. Go to the overview to find others."
INVALID_REQUEST_TEXT = "The request has an invalid value. Go back and reload the page."
UNSTORABLE_TEXT = (
    "A text contains a character that can't be stored, such as NUL. Nothing was done; remove it."
)
SIGNED_OUT_TEXT = (
    "You are signed out, and nothing was sent. Go back to copy what you typed, sign in and send it"
    " again"
)
UNEXPECTED_ERROR_TEXT = (
    "The service failed, perhaps after it did what you asked. Check before you try again."
)


def install_handlers(console: FastAPI) -> None:
    """Register the handlers that turn errors of the console into pages."""
    handlers: dict[type[Exception], ExceptionHandler] = {
        SignInRequiredError: _redirect_to_sign_in,
        RefusalError: _handle_refusal,
        StoreError: _handle_refusal,
        RequestValidationError: _handle_invalid_request,
        HTTPException: _handle_http_error,
        UnstorableValueError: _handle_unstorable_text,
        Exception: _handle_unexpected_error,
    }
    for kind, handler in handlers.items():
        console.add_exception_handler(kind, handler)


async def _redirect_to_sign_in(request: Request, error: Exception) -> Response:
    return_path = error.return_path if isinstance(error, SignInRequiredError) else ""
    if request.method == "POST":
        context = {"to": return_path, "openid": bool(request.app.state.openid)}
        return render_page(request, None, "sign_in", 401, note=SIGNED_OUT_TEXT, **context)
    return RedirectResponse(build_sign_in_path(return_path), HTTPStatus.SEE_OTHER)


async def _handle_refusal(request: Request, error: Exception) -> Response:
    code = str(getattr(error, "code", "refused"))
    return await _render_problem(request, say_refusal(error), find_status(code), code)


async def _handle_invalid_request(request: Request, _error: Exception) -> Response:
    return await _render_problem(request, INVALID_REQUEST_TEXT, 422)


async def _handle_unstorable_text(request: Request, _error: Exception) -> Response:
    return await _render_problem(request, UNSTORABLE_TEXT, 422)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == HTTPStatus.NOT_FOUND:
        return await _render_problem(request, NO_PAGE_TEXT, status)
    return await _render_problem(request, f"{HTTPStatus(status).phrase}. {OVERVIEW_TEXT}", status)


async def _handle_unexpected_error(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, find_route(request.scope), exc_info=error)
    return await _render_problem(request, UNEXPECTED_ERROR_TEXT, 500)


async def _render_problem(request: Request, text: str, status: int, code: str = "") -> Response:
    """Render an error page; errors of stops use the priority threads."""
    title = HTTPStatus(status).phrase.capitalize()
    visitor = find_visitor(request)
    context = {"says": text, "title": title, "code": code}
    render = partial(render_page, request, visitor, "refused", status, **context)
    page = await (
        run_with_priority(render) if is_narrowing(request.scope) else run_in_threadpool(render)
    )
    page.headers.update(build_retry_headers(status))
    return page


CLOSED_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
"""Policy of responses that are no pages: files, redirects, script, style sheet."""
PAGE_MODULES: Final = (
    "access.account_pages",
    "proposals.pages",
    "cells.overview_pages",
    "reviews.pages",
    "incidents.pages",
    "ledger.pages",
    "divergences.pages",
    "proposals.list_pages",
    "stops.pages",
    "cells.value_table",
    "records.pages",
    "reports.pages",
    "access.user_pages",
    "erasure.pages",
    "policies.pages",
    "what_if.pages",
    "uploads.pages",
    "reviews.plan_pages",
    "cells.pages",
)


def create_console(
    service: Service,
    *,
    has_openid: bool = False,
    demo: DemoConsole | None = None,
    cause_runs: CauseRuns | None = None,
    report_work: ReportWork | None = None,
    parts: Sequence[OptionalPart] = (),
) -> FastAPI:
    """Return the console of one replica, mounted at `page_context.HOME`.

    `demo` adds the live demo's pages, and its bar to every page. `cause_runs` and
    `report_work` are the API's, so that their limits hold for both.
    """
    console = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    console.state.service, console.state.openid = service, has_openid
    console.state.demo, console.state.parts = demo, parts
    console.state.what_if_runs = WhatIfRuns(service.database)
    console.state.upload_runs = UploadRuns(UploadFolder())
    console.state.report_runs = UserRuns[str, str]()
    console.state.report_work = report_work or ReportWork()
    console.state.plan_runs = UserRuns[str, object]()
    console.state.cause_runs = cause_runs or CauseRuns()
    console.state.revisions = RevisionCache(service.database, service.wall_clock)
    page_modules = (
        import_module(f"api.{name}") for name in (*PAGE_MODULES, *(part.pages for part in parts))
    )
    for module in (
        assets,
        page_context,
        *page_modules,
    ):  # `include_router` would parse each route again
        console.router.routes.extend(module.router.routes)
    if demo is not None:
        console.router.routes.extend(demo.router.routes)
    install_handlers(console)
    console.add_middleware(ContentPolicyMiddleware)
    console.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    return console


@dataclass(frozen=True, slots=True)
class ContentPolicyMiddleware:
    """Add a Content-Security-Policy that allows nothing, unless a response has one."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response with a Content-Security-Policy."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name.lower() != b"content-security-policy" for name, _ in headers):
                    headers = [*headers, (b"content-security-policy", CLOSED_POLICY)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_policy)
