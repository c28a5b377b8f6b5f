"""The console as an application of its own, mounted beside the API: pages where that has problems.

It has no right and no rule of its own. Each page asks the services what the API asks, as the person
who is signed in, and shows what they answer or why they refuse.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.console.errors import install
from api.console.page import assets, revision
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import Revisions

CLOSED: Final = b"default-src 'none'; frame-ancestors 'none'"
"""The policy of what is no page: files, redirects, the script and the style sheet themselves."""
PAGES: Final = (
    "users.sign_in",
    "proposals.proposal",
    "rollouts.overview",
    "reviews.review",
    "reviews.adjudication",
    "ledger.incidents",
    "ledger.incident",
    "ledger.ledger",
    "divergences.divergences",
    "proposals.proposals",
    "rollouts.stop",
    "rollouts.narrow",
    "rollouts.resume",
    "reviews.case",
    "reports.reports",
    "users.settings",
    "users.users",
    "users.keys",
    "rollouts.policy",
    "reports.deliveries",
    "rollouts.rollout",
    "page.help",
)


def create_console(service: Service, *, openid: bool = False) -> FastAPI:
    """Return the console of one replica, to be mounted at `visitor.HOME`."""
    console = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    console.state.service, console.state.openid = service, openid
    console.state.revisions = Revisions(service.database, service.clock)
    page_modules = (import_module(f"api.console.{name}") for name in PAGES)
    for module in (
        assets,
        revision,
        *page_modules,
    ):  # as they are: `include_router` reads each once more
        console.router.routes.extend(module.router.routes)
    install(console)
    console.add_middleware(Closed)
    console.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    return console


@dataclass(frozen=True, slots=True)
class Closed:
    """Give each answer that has no policy of its own one that lets nothing."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with a Content-Security-Policy, whatever the answer is."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name.lower() != b"content-security-policy" for name, _ in headers):
                    headers = [*headers, (b"content-security-policy", CLOSED)]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, sending)
