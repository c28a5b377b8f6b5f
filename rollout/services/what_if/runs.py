"""Runs of comparisons, each in a process of its own, for the users of one replica."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pydantic_core import to_jsonable_python

from rollout.core.scope.permissions import Caller
from rollout.services.support.process_runs import ProcessRun, ProcessRuns, RunKind
from rollout.services.what_if.comparison import WhatIfResult
from rollout.services.what_if.requests import WhatIfRequest
from rollout.store.database.session import Database

COMMAND: Final = (sys.executable, "-P", "-m", "rollout.services.what_if.what_if_process")
"""`-P` keeps modules of the working directory out."""
LONGEST_RUN: Final = 6 * 3600.0  # seconds; one that waits uses no processor
BROKEN_TEXT: Final = (
    "it ended without a result: it may need more than 1 GiB of memory or half an hour of a"
    " processor; compare 30 days, or run the command"
)
WhatIfRun = ProcessRun[WhatIfRequest, WhatIfResult]


class WhatIfRuns(ProcessRuns[WhatIfRequest, WhatIfResult]):
    """The last comparison of each user."""

    def __init__(self, database: Database, command: Sequence[str] = COMMAND) -> None:
        super().__init__(RunKind(tuple(command), WhatIfResult, LONGEST_RUN, BROKEN_TEXT))
        self._database = database

    def start(self, caller: Caller, request: WhatIfRequest, *, at: datetime) -> WhatIfRun:
        """Start a run, which replaces the user's last one, and return at once.

        Raises:
            RefusalError: the user has a running one, or the replica has as many as it may.
        """
        values = {
            "database": self._database.engine.url.render_as_string(hide_password=False),
            "caller": to_jsonable_python(caller),
            "request": to_jsonable_python(request),
            "at": at.isoformat(),
        }
        advice = f"`rollout what-if {request.rollout} draft.yaml --days {request.days}`"
        return self.start_process(caller.name, request, values, advice=advice, at=at)

    def find(self, user: str, rollout: str, *, at: datetime) -> WhatIfRun | None:
        """Return the user's last run on a rollout; None without one in the last seven days."""
        run = self.find_run(user, at=at)
        return run if run is not None and run.request.rollout == rollout else None
