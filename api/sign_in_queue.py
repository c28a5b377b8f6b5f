"""A bound on sign-ins in progress, so that a flood of them costs neither threads nor reads.

It is checked on the event loop, after the body was received: a slow body holds no place.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import build_problem
from rollout.features.access.credentials import LINE_FULL, MAX_WAITING_HASHES

API_PATHS: Final = frozenset({"/v1/session", "/v1/session/link"})
PAGE_PATHS: Final = frozenset(
    {"/console/sign-in", "/console/sign-in/code", "/console/set-password"}
)
RETRY_AFTER: Final = {"Retry-After": "1"}


@dataclass(slots=True)
class SignInQueueMiddleware:
    """Middleware that refuses a sign-in while as many as may wait are in progress."""

    app: ASGIApp
    in_progress: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, or refuse it at once with 429."""
        if not is_sign_in(scope):
            await self.app(scope, receive, send)
        elif self.in_progress >= MAX_WAITING_HASHES:
            await _build_refusal(str(scope["path"]))(scope, receive, send)
        else:
            self.in_progress += 1
            try:
                await self.app(scope, receive, send)
            finally:
                self.in_progress -= 1


def is_sign_in(scope: Scope) -> bool:
    """Return whether a request may make the service hash a password before it has a session."""
    return (
        scope["type"] == "http"
        and scope["method"] == "POST"
        and (scope["path"] in API_PATHS or scope["path"] in PAGE_PATHS)
    )


def _build_refusal(path: str) -> ASGIApp:
    if path in API_PATHS:
        return build_problem("too-many-requests", LINE_FULL)
    return PlainTextResponse(f"Refused: {LINE_FULL}.", HTTPStatus.TOO_MANY_REQUESTS, RETRY_AFTER)
