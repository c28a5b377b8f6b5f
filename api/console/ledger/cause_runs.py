"""Search for a cause in a run of the visitor, which a page need not wait for."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from fastapi import Request

from api.console.page.page_context import Visitor
from rollout.services.incidents.incident_causes import LoadedCause
from rollout.services.support.user_runs import StepCallback, UserRun, UserRuns

PATIENCE: Final = 1.0
"""Seconds for which a request waits for its cause; a longer search goes on without it."""
RELOAD_SECONDS: Final = 2
CAUSE_LIFETIME: Final = timedelta(minutes=15)
"""How long a cause that was left can be shown; later it is sought anew, with newer cases."""


@dataclass(frozen=True, slots=True)
class CauseSearch:
    """What became of a search: `run` is None once it has ended, with or without a cause."""

    loaded: LoadedCause | None = None
    run: UserRun[LoadedCause | None] | None = None


def find_cause(
    request: Request, visitor: Visitor, query: object, load: Callable[[], LoadedCause | None]
) -> CauseSearch:
    """Return the cause, or the run if it takes longer; a later request finds that run.

    A run is for the visitor's permissions as they were when it started: with others it starts anew.

    Args:
        query: which cases are searched, told from others by its text.
        load: reads and searches them.
    """
    runs: UserRuns[LoadedCause | None] = request.app.state.cause_runs
    subject = f"{request.url.path} {query!r} {visitor.caller!r}"

    def search(_: StepCallback) -> LoadedCause | None:
        return load()

    run = runs.find_or_start(visitor.name, subject, search, at=visitor.at)
    if run.wait(PATIENCE) and run.subject != subject:  # the user looked at another page before
        run = runs.find_or_start(visitor.name, subject, search, at=visitor.at)
        run.wait(PATIENCE)
    if run.is_running or run.subject != subject:
        return CauseSearch(run=run)
    runs.forget(visitor.name, run)
    if run.failure is not None:
        raise run.failure
    return CauseSearch(run.result)
