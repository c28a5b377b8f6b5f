"""Threads reserved for requests that narrow, so that load never delays a stop."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from typing import Any, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

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
