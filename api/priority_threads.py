"""Limits on waiting: threads kept for requests that narrow, deadlines, a queue of sign-ins.

Requests that narrow: load never delays a stop.

Assignments: the answer, or "a human decides", comes within a second. Work that reads the database
runs on threads of its own. When the time is over, the response doesn't wait for the thread: the
database's own limits end it within seconds. The number of threads is limited, and work that still
waits for one is dropped with its request.

The queue of sign-ins is on the event loop, after the body was received: a slow body holds no place.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial, wraps
from http import HTTPStatus
from typing import Any, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import build_problem
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.features.access.credentials import LINE_FULL, MAX_WAITING_HASHES

NARROWING_PATHS: Final = ("/stops", "/narrowings", "/rejection", "/retirement")


NARROWING_PAGES: Final = (
    *("/stop", "/stop/confirm", "/stop/done"),
    *("/narrow", "/narrow/confirm", "/narrow/done", "/rejection"),
)


PRIORITY_THREADS: Final = CapacityLimiter(8)


LOOK_UP_THREADS: Final = CapacityLimiter(8)
"""For callers who are not known yet: whoever they are, they hold up no handler of a stop."""


P = ParamSpec("P")


T = TypeVar("T")


def is_narrowing(scope: Mapping[str, Any]) -> bool:
    """Return whether a request can only narrow what the model may do."""
    path = str(scope["path"])
    if path.startswith("/console/"):  # GET as well: the page with the form
        return path.endswith(NARROWING_PAGES)
    return scope["method"] == "POST" and path.startswith("/v1/") and path.endswith(NARROWING_PATHS)


def is_latchable(scope: Mapping[str, Any]) -> bool:
    """Return whether memory can hold what a request does: a stop or a narrowing."""
    match scope["method"], str(scope["path"]).split("/"):
        case "POST", ["", "v1", "rollouts", _, "stops" | "narrowings"]:
            return True
        case "POST", ["", "console", "rollouts", _, "stop" | "narrow", "confirm"]:
            return True
    return False


async def run_with_priority(work: Callable[[], T]) -> T:
    """Run a function on a reserved thread."""
    return await to_thread.run_sync(work, limiter=PRIORITY_THREADS)


async def look_up_with_priority(look_up: Callable[[], T]) -> T:
    """Run the look-up of a caller on a reserved thread."""
    return await to_thread.run_sync(look_up, limiter=LOOK_UP_THREADS)


def prioritize(handler: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Run a route's handler on a reserved thread."""

    @wraps(handler)
    async def handle(*args: P.args, **kwargs: P.kwargs) -> T:
        return await run_with_priority(partial(handler, *args, **kwargs))

    return handle


ASSIGNMENT_SECONDS: Final = 1.0
"""Seconds until an assignment is answered, not counting how long its body takes to arrive."""
ASSIGNMENT_THREADS: Final = ThreadPoolExecutor(16, thread_name_prefix="assignment")
NO_ANSWER_TEXT: Final = (
    f"the database did not respond within {ASSIGNMENT_SECONDS:.0f} s; a human decides, or retry"
)
OFREP_PATH: Final = "/ofrep/v1/evaluate/flags"
SECONDS_LEFT: Final = "assignment_seconds"
"""Key of the seconds left in a request's state, after its caller was found."""
Result = TypeVar("Result")


def is_assignment(scope: Mapping[str, Any]) -> bool:
    """Return whether a request asks who decides: questions, flags or a snapshot."""
    path, method = str(scope["path"]), scope["method"]
    if method == "POST":
        return path.startswith(OFREP_PATH) or (
            path.startswith("/v1/rollouts/") and path.endswith("/assignments")
        )
    return method == "GET" and path.startswith("/v1/rollouts/") and path.endswith("/scope")


async def run_in_time(state: dict[str, Any], work: Callable[[], Result]) -> Result:
    """Return the result of `work`, at the latest when the time of the request is over.

    Args:
        state: the request's state, with the seconds that earlier work left.
        work: reads the database; runs on a thread.

    Raises:
        DatabaseUnavailableError: there is no result in time.
    """
    started_at = time.monotonic()
    seconds = state.get(SECONDS_LEFT, ASSIGNMENT_SECONDS)
    try:
        async with asyncio.timeout(seconds):
            run_work = partial(copy_context().run, work)  # logs name the request
            return await asyncio.get_running_loop().run_in_executor(ASSIGNMENT_THREADS, run_work)
    except TimeoutError:
        raise DatabaseUnavailableError(NO_ANSWER_TEXT) from None
    finally:
        state[SECONDS_LEFT] = max(0.0, seconds - (time.monotonic() - started_at))


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
