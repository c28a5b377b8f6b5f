"""The ASGI application: routers, problems, middleware, put together around one service."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from api import describing, ofrep
from api.auth import Authenticate, Judged
from api.console.late import LateConsole
from api.counting import Counting, Counts
from api.idempotency import Idempotency
from api.limits import Limits
from api.oidc import Provider, router_of
from api.problems import EVERYWHERE, Problem, install
from rollout.services.service import Service

ROUTERS = (
    "assignments",  # asked most, so looked at first
    "records",
    "health",
    "metrics",
    "rollouts",
    "scope",
    "reviews",
    "keys",
    "me",
    "people",
    "sessions",
    "cells",
    "proposals",
    "stops",
    "policies",
    "versions",
    "incidents",
    "deliveries",
    "ledger",
    "events",
    "cases",
    "set_aside",
    "baselines",
    "reports",
    "cleanings",
    "training",
)
HOME = "/console"
ABOUT = (
    "Who decides this case, right now, and who may change that. Every problem is RFC 9457 and "
    "says the next step. Times carry their offset. Asking again with the same keys is safe."
)


def create(service: Service, openid: Provider | None = None) -> FastAPI:
    """Return the application of one replica.

    Args:
        service: what it serves.
        openid: where people may sign in beside their passwords.

    Raises:
        RuntimeError: a route under /v1 says not who may ask it.
    """
    app = FastAPI(
        title="rollout",
        version=version("rollout-controller"),
        description=ABOUT,
        docs_url=None,  # its pages would load scripts from elsewhere; `/docs` is our own
        redoc_url=None,
    )
    app.state.service, app.state.counts = service, Counts()
    for name in ROUTERS:
        include(app, import_module(f"api.routers.{name}").router)
    include(app, ofrep.router)
    if openid is not None:
        include(app, router_of(openid))
    include(app, describing.router)
    app.mount(HOME, LateConsole(service, openid=openid is not None))
    app.add_api_route("/", _home, include_in_schema=False)
    install(app)
    app.add_middleware(Counting, counts=app.state.counts)  # next to the routes: it names them
    app.add_middleware(Idempotency, service=service)  # the last one added is asked first
    app.add_middleware(Limits, clock=service.clock)
    app.add_middleware(Authenticate, service=service)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


async def _home() -> RedirectResponse:
    """Lead whoever types the address alone to the console."""
    return RedirectResponse(f"{HOME}/")


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the one form of all problems in it."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=ABOUT, routes=app.routes
        )
        forms = made.setdefault("components", {}).setdefault("schemas", {})
        form = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        forms |= {**form.pop("$defs", {}), "Problem": form}
        app.openapi_schema = made
    return app.openapi_schema


def include(app: FastAPI, router: APIRouter) -> None:
    """Put a router's routes into `app`; one that says not who may ask it starts no service.

    They are put there as they are: FastAPI's `include_router` would read each of them once more.

    Raises:
        RuntimeError: names the open routes.
    """
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    ours = [route for route in routes if route.path.startswith("/v1")]
    open_ones = [route.path for route in ours if not _judged(route.dependant)]
    if open_ones:
        raise RuntimeError(f"no `By` in {', '.join(open_ones)}: say who may ask")
    for route in ours:
        route.responses = EVERYWHERE | route.responses
    app.router.routes.extend(router.routes)


def _judged(dependant: Dependant) -> bool:
    return isinstance(dependant.call, Judged) or any(map(_judged, dependant.dependencies))
