"""The console application, mounted beside the API.

Pages call the same services as the API, as the signed-in user, so both enforce the same
permissions.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.console.errors import install_handlers
from api.console.page import assets, revision
from api.console.page.demo_console import DemoConsole
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import RevisionCache
from rollout.services.incidents.cause_runs import CauseRuns
from rollout.services.reports.report_work import ReportWork
from rollout.services.support.user_runs import UserRuns
from rollout.services.uploads.upload_folder import UploadFolder
from rollout.services.uploads.upload_runs import UploadRuns
from rollout.services.what_if.runs import WhatIfRuns

CLOSED_POLICY: Final = b"default-src 'none'; frame-ancestors 'none'"
"""Policy of responses that are no pages: files, redirects, script, style sheet."""
PAGE_MODULES: Final = (
    "users.sign_in",
    "proposals.proposal",
    "rollouts.overview",
    "reviews.review",
    "ledger.incidents",
    "ledger.incident",
    "ledger.ledger",
    "divergences.divergences",
    "divergences.cause",
    "proposals.proposals",
    "rollouts.stop",
    "rollouts.narrow",
    "rollouts.resume",
    "rollouts.attempt",
    "reviews.case",
    "reports.reports",
    "users.settings",
    "users.second_factor",
    "users.notifications",
    "users.users",
    "users.erasures",
    "users.keys",
    "rollouts.policy",
    "rollouts.what_if",
    "rollouts.uploads",
    "rollouts.planted_cases",
    "rollouts.schedule",
    "rollouts.review_plan",
    "rollouts.search",
    "reports.deliveries",
    "rollouts.rollout",
    "page.help",
)


def create_console(
    service: Service,
    *,
    has_openid: bool = False,
    demo: DemoConsole | None = None,
    cause_runs: CauseRuns | None = None,
    report_work: ReportWork | None = None,
) -> FastAPI:
    """Return the console of one replica, mounted at `page_context.HOME`.

    `demo` adds the live demo's pages, and its bar to every page. `cause_runs` and
    `report_work` are the API's, so that their limits hold for both.
    """
    console = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    console.state.service, console.state.openid = service, has_openid
    console.state.demo = demo
    console.state.what_if_runs = WhatIfRuns(service.database)
    console.state.upload_runs = UploadRuns(UploadFolder())
    console.state.report_runs = UserRuns[str]()
    console.state.report_work = report_work or ReportWork()
    console.state.plan_runs = UserRuns[object]()
    console.state.cause_runs = cause_runs or CauseRuns()
    console.state.revisions = RevisionCache(service.database, service.wall_clock)
    page_modules = (import_module(f"api.console.{name}") for name in PAGE_MODULES)
    for module in (
        assets,
        revision,
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
