"""The ASGI application around one service: routers, middleware, error handlers and `/docs`.

`/docs` shows all operations with examples, on a page without external resources.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from itertools import chain
from pkgutil import resolve_name
from typing import Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, select_autoescape
from starlette.types import ASGIApp, Receive, Scope, Send

from api.assignments import ofrep
from api.assignments.fast_path import AssignmentFastPathMiddleware
from api.auth import AuthenticationMiddleware, PermissionCheck
from api.idempotency import IdempotencyMiddleware
from api.limits import CLOSED_POLICY, LimitsMiddleware, RequestRates
from api.metrics import (
    ProcessMetrics,
    RequestCounts,
    RequestLogMiddleware,
    RequestMetricsMiddleware,
)
from api.oidc import IdentityProvider, build_router
from api.priority_threads import SignInQueueMiddleware
from api.problems import COMMON_RESPONSES, Problem, install_handlers
from api.web_kit.additions import DemoConsole, OptionalPart
from rollout.features.incidents.incidents import CauseRuns
from rollout.features.reports.report_work import ReportWork
from rollout.live.service import Service
from rollout.settings import REQUEST_RATE

router = APIRouter(include_in_schema=False)
METHODS = ("get", "post", "put", "patch", "delete")
Document = Mapping[str, Any]
PAGE_POLICY = f"{CLOSED_POLICY}; style-src 'unsafe-inline'"  # its styles are on the page


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation on the page; examples are JSON texts by media type or status."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    parameters: tuple[Mapping[str, Any], ...]
    bodies: tuple[tuple[str, str], ...]
    responses: tuple[tuple[str, str], ...]


@router.get("/docs")
def show_docs(request: Request) -> HTMLResponse:
    """Return the page with all operations."""
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return HTMLResponse(render_docs(request.app.openapi()), headers=headers)


def render_docs(document: Document) -> str:
    """Return the page of an OpenAPI document."""
    info = document["info"]
    tags: dict[str, list[Operation]] = {}
    for tag, operation in _list_operations(document):
        tags.setdefault(tag, []).append(operation)
    template = _load_environment().get_template("operations.html.j2")
    return template.render(
        title=info["title"],
        version=info["version"],
        about=info.get("description", ""),
        tags=sorted(tags.items()),
    )


@lru_cache(maxsize=1)
def _load_environment() -> Environment:
    return Environment(
        loader=PackageLoader("api", "web_kit"), autoescape=select_autoescape(default=True)
    )


def _list_operations(document: Document) -> Iterator[tuple[str, Operation]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield _build_operation(document, path, method, methods[method])


def _build_operation(
    document: Document, path: str, method: str, spec: Document
) -> tuple[str, Operation]:
    body = spec.get("requestBody", {}).get("content", {})
    answers = {s: a.get("content", {}) for s, a in spec["responses"].items() if s[0] == "2"}
    examples = ((s, e) for s, c in answers.items() for _, e in _list_examples(document, c))
    operation = Operation(
        id=f"{method}-{path.strip('/').replace('/', '-')}",
        method=method.upper(),
        path=path,
        summary=spec.get("summary", ""),
        description=spec.get("description", ""),
        parameters=tuple(spec.get("parameters", ())),
        bodies=tuple(_list_examples(document, body)),
        responses=tuple(examples),
    )
    return (spec.get("tags") or ["other"])[0], operation


def _list_examples(document: Document, content: Document) -> Iterator[tuple[str, str]]:
    """Yield the example of each media type, from the media type or its schema."""
    for media, spec in content.items():
        example = spec.get("example")
        if example is None and spec.get("examples"):
            example = next(iter(spec["examples"].values())).get("value")
        if example is None:
            example = _find_schema_example(document, spec.get("schema", {}))
        if example is not None:
            text = (
                example
                if isinstance(example, str)
                else json.dumps(example, indent=2, ensure_ascii=False)
            )
            yield media, text


def _find_schema_example(document: Document, schema: Document) -> Any:
    schema_name = schema.get("$ref", "").rsplit("/", 1)[-1]
    target = document["components"]["schemas"].get(schema_name, schema)
    return target.get("example") or next(iter(target.get("examples", ())), None)


class LazyConsole:
    """The application at `/console`, created on first use.

    Its pages take 40 MiB, half of it Polars, which replicas that serve only clients save.
    """

    def __init__(
        self,
        service: Service,
        cause_runs: CauseRuns,
        report_work: ReportWork,
        *,
        openid: bool,
        demo: DemoConsole | None,
        parts: Sequence[OptionalPart],
    ) -> None:
        self._service, self._cause_runs, self._report_work = service, cause_runs, report_work
        self._openid, self._demo, self._parts = openid, demo, parts
        self._console: ASGIApp | None = None
        self._thread = CapacityLimiter(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the console does."""
        console = self._console
        if console is None:
            # the first request may be a stop: it has a thread, whatever holds up the others
            console = await to_thread.run_sync(self.create, limiter=self._thread)
        await console(scope, receive, send)

    def create(self) -> ASGIApp:
        """Return the application, made by the first call."""
        if self._console is None:
            module = import_module("api.console")
            self._console = module.create_console(
                self._service,
                has_openid=self._openid,
                demo=self._demo,
                parts=self._parts,
                cause_runs=self._cause_runs,
                report_work=self._report_work,
            )
        return self._console


ROUTERS = (
    "assignments.routes:router",  # first because it gets the most requests
    "records.routes:router",
    "health.routes:router",
    "health.routes:metrics_router",
    "cells.routes:rollouts_router",
    "cells.routes:scope_router",
    "reviews.routes:router",
    "access.routes:keys_router",
    "access.routes:me_router",
    "access.routes:router",
    "erasure.routes:router",
    "access.routes:sessions_router",
    "cells.routes:router",
    "reviews.routes:review_plan_router",
    "incidents.routes:causes_router",
    "cells.routes:schedule_router",
    "proposals.routes:router",
    "stops.routes:router",
    "policies.routes:router",
    "policies.routes:versions_router",
    "incidents.routes:router",
    "reports.routes:deliveries_router",
    "ledger.routes:router",
    "ledger.routes:events_router",
    "records.routes:cases_router",
    "divergences.routes:router",
    "records.routes:rejected_records_router",
    "records.routes:baselines_router",
    "records.routes:planted_cases_router",
    "reports.routes:router",
)
OPTIONAL_PARTS = ("notifications.routes:PART", "training.routes:PART")
"""What else there is, each with all that it adds; commands of a part are in `rollout.cli.main`."""
CONSOLE_PATH = "/console"
DESCRIPTION = (
    "Decide who handles each case, the model or a human, and control where the model may act. "
    "Errors are RFC 9457 problems whose `detail` has the next step. Times include a UTC offset. "
    "Requests are safe to retry with the same keys, or with an `Idempotency-Key`."
)


def create_app(
    service: Service,
    openid: IdentityProvider | None = None,
    demo: DemoConsole | None = None,
    request_rate: float = REQUEST_RATE,
) -> FastAPI:
    """Return the application of one replica.

    Args:
        service: the service it exposes.
        openid: an identity provider for sign-in, besides passwords.
        demo: the live demo's links and controls, in no other service.
        request_rate: requests a second of one key, or of one user's sessions.

    Raises:
        RuntimeError: a route has no `operation_id`, or no permission check.
    """
    app = FastAPI(
        title="rollout",
        version=version("rollout-controller"),
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's page loads scripts from a CDN; see api/app.py
        redoc_url=None,
    )
    app.state.service, app.state.counts = service, RequestCounts()
    app.state.process_metrics = metrics = ProcessMetrics(service.database)
    app.state.flag_rollouts = set()  # whose flags are `human` while the database does not respond
    add_routes(app, ofrep.router)  # first: routes are matched in turn, and flags are asked most
    parts = load_parts()
    app.state.sending_jobs = [job for part in parts for job in part.sending_jobs]
    for router_item in chain(
        (resolve_name(f"api.{source}") for source in ROUTERS), *(part.routers for part in parts)
    ):
        add_routes(app, router_item)
    if openid is not None:
        add_routes(app, build_router(openid))
    add_routes(app, router)
    app.state.cause_runs = cause_runs = CauseRuns()
    app.state.report_work = report_work = ReportWork()
    console = LazyConsole(
        service, cause_runs, report_work, openid=openid is not None, demo=demo, parts=parts
    )
    app.mount(CONSOLE_PATH, console)
    if demo is not None:
        console.create()  # its links lead there, and the demo has time until its history is built
    app.add_api_route("/", _redirect_home, include_in_schema=False)
    install_handlers(app)
    # The last one added runs first; metrics run before what matches the route, which they need.
    app.add_middleware(AssignmentFastPathMiddleware, service=service, counts=app.state.counts)
    app.add_middleware(
        RequestMetricsMiddleware, counts=app.state.counts, observe_request=metrics.observe_request
    )
    app.add_middleware(IdempotencyMiddleware, service=service)
    app.add_middleware(SignInQueueMiddleware)
    rates = RequestRates(service.wall_clock, request_rate)
    app.add_middleware(LimitsMiddleware, rates=rates)
    app.add_middleware(AuthenticationMiddleware, service=service, rates=rates)
    app.add_middleware(RequestLogMiddleware)
    app.openapi = lambda: _build_openapi(app)  # type: ignore[method-assign]
    return app


def load_parts() -> list[OptionalPart]:
    """Return the optional parts."""
    return [resolve_name(f"api.{source}") for source in OPTIONAL_PARTS]


async def _redirect_home() -> RedirectResponse:
    """Redirect to the console."""
    return RedirectResponse(f"{CONSOLE_PATH}/")


def _build_openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schema of problems."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes
        )
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        problem_schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= {**problem_schema.pop("$defs", {}), "Problem": problem_schema}
        schemas["JsonValue"]["title"] = "JsonValue"  # pydantic sets no title
        app.openapi_schema = document
    return app.openapi_schema


def add_routes(app: FastAPI, router: APIRouter) -> None:
    """Add a router's routes to `app`.

    The routes are added directly: FastAPI's `include_router` would parse each of them again.

    Raises:
        RuntimeError: routes lack a permission check or an `operation_id`; the message names them.
    """
    routes = [route for route in router.routes if isinstance(route, APIRoute)]
    nameless = [r.path for r in routes if r.include_in_schema and r.operation_id is None]
    if nameless:
        raise RuntimeError(f"no operation_id in {', '.join(nameless)}: clients are generated by it")
    api_routes = [route for route in routes if route.path.startswith("/v1")]
    unprotected_paths = [
        route.path for route in api_routes if not _has_permission_check(route.dependant)
    ]
    if unprotected_paths:
        raise RuntimeError(f"no `By` in {', '.join(unprotected_paths)}: say who may ask")
    for route in api_routes:
        route.responses = COMMON_RESPONSES | route.responses
    app.router.routes.extend(router.routes)


def _has_permission_check(dependant: Dependant) -> bool:
    return isinstance(dependant.call, PermissionCheck) or any(
        map(_has_permission_check, dependant.dependencies)
    )
