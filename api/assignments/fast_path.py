"""A fast path for requests that clients send for each case: from memory, without routing.

Matching a route and resolving its parameters costs more than the answer. The fast path is the
innermost middleware: authentication, limits, metrics and the access log are around it as around
routes. It sends an answer only if memory has one without doubt or error. Any other request goes to
its route, with nothing done yet, and the route answers it or says what is wrong.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.assignments import ofrep, routes
from api.limits import replay_message
from api.metrics import RequestCounts
from rollout.engine.decide.permissions import Caller
from rollout.live.service import Service

ASSIGNMENTS_PATH: Final = re.compile(r"/v1/rollouts/([^/]+)/assignments")
FLAG_PATH: Final = re.compile(r"/ofrep/v1/evaluate/flags/(gate\..+)")

FindAnswer = Callable[[Caller, str, bytes], bytes | None]
"""Returns the JSON of a response from caller, path parameter and body; None without a sure one."""


@dataclass(frozen=True, slots=True)
class LaneRoute:
    """A route, the paths that it surely matches, and its answers from memory."""

    path_pattern: re.Pattern[str]
    route: APIRoute
    find_answer: FindAnswer


class AssignmentFastPathMiddleware:
    """Middleware that answers questions about one rollout from memory, or passes them on."""

    def __init__(self, app: ASGIApp, service: Service, counts: RequestCounts) -> None:
        self._app = app
        self._routes = (
            LaneRoute(
                ASSIGNMENTS_PATH,
                _find_route(routes.router, "requestAssignments"),
                partial(routes.find_quick_answer, service, counts),
            ),
            LaneRoute(
                FLAG_PATH,
                _find_route(ofrep.router, "evaluateFlag"),
                partial(ofrep.find_quick_answer, service),
            ),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer from memory, or let the route of the request answer."""
        question = self._find_question(scope)
        if question is None:
            await self._app(scope, receive, send)
            return
        lane_route, parameter = question
        message, answer = await receive(), None
        if message["type"] == "http.request" and not message.get("more_body"):
            with suppress(Exception):  # the route meets it too, and has handlers for it
                answer = lane_route.find_answer(
                    scope["state"]["caller"], parameter, message["body"]
                )
        if answer is None:
            await self._app(scope, replay_message(message, receive), send)
            return
        scope["route"] = lane_route.route  # for metrics and the log
        await _send_json(send, answer)

    def _find_question(self, scope: Scope) -> tuple[LaneRoute, str] | None:
        """Return the route of a known caller's question, and its path parameter."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["root_path"]:
            return None
        if not isinstance(scope["state"]["caller"], Caller):
            return None
        for lane_route in self._routes:
            path_match = lane_route.path_pattern.fullmatch(scope["path"])
            if path_match is not None:
                return lane_route, path_match[1]
        return None


async def _send_json(send: Send, body: bytes) -> None:
    headers = [
        (b"content-length", str(len(body)).encode()),
        (b"content-type", b"application/json"),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _find_route(router: APIRouter, operation_id: str) -> APIRoute:
    return next(
        route
        for route in router.routes
        if isinstance(route, APIRoute) and route.operation_id == operation_id
    )
