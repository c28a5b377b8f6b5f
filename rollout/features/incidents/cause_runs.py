"""Search for a cause in a run of the caller, which a request need not wait for."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Final

from rollout.engine.decide.permissions import Caller
from rollout.live.work.user_runs import UserRun, UserRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollout.features.incidents.incident_causes import LoadedCause


PATIENCE: Final = 1.0
"""Seconds for which a request waits for its cause; a longer search goes on without it."""
MAX_WAITING: Final = 8
"""Requests that wait at once, so that causes never hold all threads of a replica."""
RELOAD_SECONDS: Final = 2
CAUSE_LIFETIME: Final = timedelta(minutes=15)
"""How long a cause that was left can be shown; later it is sought anew, with newer cases."""
MAX_CAUSES: Final = 4
"""Causes of one user that are kept, one for each of their windows."""


@dataclass(frozen=True, slots=True)
class CauseSearch:
    """What became of a search: `run` is None once it has ended, with or without a cause."""

    loaded: "LoadedCause | None" = None
    run: "UserRun[str, LoadedCause | None] | None" = None


class CauseRuns:
    """The searches of one replica, for the pages of the console and the API."""

    def __init__(self) -> None:
        self._runs: UserRuns[str, LoadedCause | None] = UserRuns(CAUSE_LIFETIME, MAX_CAUSES)
        self._waiting = BoundedSemaphore(MAX_WAITING)

    def find(
        self,
        caller: Caller,
        query: object,
        load: "Callable[[], LoadedCause | None]",
        *,
        at: datetime,
    ) -> CauseSearch:
        """Return the cause, or the run if it takes longer; a later request finds that run.

        A caller with other roles than when it started gets a search of their own.

        Args:
            caller: who asks; one search of theirs works at a time.
            query: which cases are searched, told from others by its text.
            load: reads and searches them.
            at: now.

        Raises:
            RefusalError: the search was refused, or it failed.
        """
        subject = repr(query)

        def search(_: object) -> "LoadedCause | None":
            return load()

        run = self._runs.find_or_start(caller, subject, search, at=at)
        if self._wait(run) and run.subject != subject:  # they looked for another cause before
            run = self._runs.find_or_start(caller, subject, search, at=at)
            self._wait(run)
        if run.is_running or run.subject != subject:
            return CauseSearch(run=run)
        self._runs.forget(run)
        if run.failure is not None:
            raise run.failure
        return CauseSearch(run.result)

    def _wait(self, run: "UserRun[str, LoadedCause | None]") -> bool:
        """Wait for a run's end, not at all if many requests wait; return whether it has ended."""
        if not self._waiting.acquire(blocking=False):
            return not run.is_running
        try:
            return run.wait(PATIENCE)
        finally:
            self._waiting.release()
