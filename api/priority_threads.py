"""Threads that are kept for what narrows: no number of other requests holds up a stop."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial, wraps
from typing import Any, Final, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

NARROWING: Final = ("/stops", "/narrowings", "/rejection", "/retirement")
NARROWING_PAGES: Final = (
    *("/stop", "/stop/confirm", "/stop/done"),
    *("/narrow", "/narrow/confirm", "/narrow/done", "/rejection"),
)
THREADS: Final = CapacityLimiter(8)
P = ParamSpec("P")
T = TypeVar("T")


def narrows(scope: Mapping[str, Any]) -> bool:
    """Say whether a request can only make less of what is allowed."""
    path = str(scope["path"])
    if path.startswith("/console/"):  # there the page with the form too
        return path.endswith(NARROWING_PAGES)
    return scope["method"] == "POST" and path.startswith("/v1/") and path.endswith(NARROWING)


async def at_once(work: Callable[[], T]) -> T:
    """Do something on a thread that only narrowing takes."""
    return await to_thread.run_sync(work, limiter=THREADS)


def narrowing(handler: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let a route's handler run on a thread that only narrowing takes."""

    @wraps(handler)
    async def handle(*args: P.args, **more: P.kwargs) -> T:
        return await at_once(partial(handler, *args, **more))

    return handle
