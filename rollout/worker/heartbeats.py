"""A replica's thread for heartbeats and for stops that the ledger lacks.

It does nothing else, so that no tick, report or request delays it.
"""

import logging
from threading import Event, Thread
from typing import Final

from rollout.data.database.errors import DatabaseUnavailableError
from rollout.features.process.replica_safety import ReplicaSafety
from rollout.live.service import Service

HEARTBEAT_INTERVAL: Final = 1.0  # seconds; three fit into the age at which humans decide
STOP_GRACE: Final = 6.0  # seconds for a write that waits for a lock
log = logging.getLogger("rollout.heartbeats")


class HeartbeatWorker:
    """A replica's heartbeat thread; a latched stop wakes it."""

    def __init__(
        self, service: Service, owner: str, *, interval: float = HEARTBEAT_INTERVAL
    ) -> None:
        """Build the worker without starting it; `owner` names the replica."""
        self._safety = ReplicaSafety(service, owner)
        self._interval = interval
        self._wake_event = service.autonomy.latches.changed
        self._is_stopping = Event()
        self._last_failure = ""
        self._thread = Thread(target=self._run, name="heartbeats", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the current write and stop."""
        self._is_stopping.set()
        self._wake_event.set()
        if self._thread.is_alive():
            self._thread.join(STOP_GRACE)

    def _run(self) -> None:
        while not self._is_stopping.is_set():
            self._run_pass()
            self._wake_event.wait(self._interval)
            self._wake_event.clear()

    def _run_pass(self) -> None:
        """Run a pass; log a failure when it differs from the one before, but no outage."""
        errors = self._safety.run_pass()
        others = [e for e in errors if not isinstance(e, DatabaseUnavailableError)]
        if errors and not others:
            return  # the database logs an outage once when it begins and once when it ends
        failure = "; ".join(f"{type(e).__name__}: {e}" for e in others)
        if failure and failure != self._last_failure:
            for error in others:
                log.error(
                    "humans decide until this replica can write again: %s: %s",
                    *(type(error).__name__, error),
                )
        elif self._last_failure and not failure:
            log.warning("this replica can write again")
        self._last_failure = failure
