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

from api.console import assets, revision
from api.console.refusals import install
from rollout.services.revisions import Revisions
from rollout.services.service import Service

CLOSED: Final = b"default-src 'none'; frame-ancestors 'none'"
"""The policy of what is no page: files, redirects, the script and the style sheet themselves."""
PAGES: Final = (
    "sign_in",
    "proposal",
    "overview",
    "review",
    "adjudication",
    "incidents",
    "incident",
    "ledger",
    "divergences",
    "proposals",
    "stop",
    "narrow",
    "resume",
    "case",
    "reports",
    "settings",
    "people",
    "keys",
    "policy",
    "deliveries",
    "rollout",
    "words",
)


def create_console(service: Service, *, openid: bool = False) -> FastAPI:
    """Return the console of one replica, to be mounted at `visitor.HOME`."""
    console = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    console.state.service, console.state.openid = service, openid
    console.state.revisions = Revisions(service.database, service.clock)
    pages = (import_module(f"api.console.pages.{name}") for name in PAGES)
    for module in (assets, revision, *pages):  # as they are: `include_router` reads each once more
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
