"""The console as an application of its own, mounted beside the API: pages where that has problems.

It has no right and no rule of its own. Each page asks the services what the API asks, as the person
who is signed in, and shows what they answer or why they refuse.
"""

from importlib import import_module
from typing import Final

from fastapi import FastAPI
from fastapi.middleware.gzip import GZipMiddleware

from api.console import assets, revision
from api.console.refusals import install
from rollout.services.revisions import Revisions
from rollout.services.service import Service

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
    console.include_router(assets.router)
    console.include_router(revision.router)
    for name in PAGES:
        console.include_router(import_module(f"api.console.pages.{name}").router)
    install(console)
    console.add_middleware(GZipMiddleware, minimum_size=1_000, compresslevel=5)
    return console
