"""What makes and sends reports: one thread in every replica, which no tick ever waits for.

The database gives each report and each delivery to one replica. While clocks disagree nothing is
made or sent: a report that is due by a wrong clock would count as made up to then.
"""

import logging
import time
from threading import Event, Thread

from rollout.services.agreement import Agreement
from rollout.services.delivering import deliver
from rollout.services.report_rounds import ReportRounds
from rollout.services.reports_out import ReportsOut
from rollout.services.sending import Send, send
from rollout.services.service import Service

EVERY = 10.0  # seconds between two looks
GRACE = 10.0  # seconds for the message that is on its way when it is told to stop
LONGEST = 60.0  # seconds that one pass sends: then it is looked again what is due
log = logging.getLogger("rollout.scheduler")


class Posting:
    """One replica's maker and sender of reports."""

    def __init__(
        self, service: Service, owner: str, *, by: Send = send, every: float = EVERY
    ) -> None:
        """Start nothing yet.

        Args:
            service: the replica.
            owner: by which the reports that it claims are known.
            by: sends a message.
            every: seconds between two looks.
        """
        self._service, self._by, self._every = service, by, every
        self._reports = ReportsOut(service)
        self._rounds = ReportRounds(service, self._reports.make, owner)
        self._agreement = Agreement(service.database, service.clock)
        self._silent: frozenset[str] = frozenset()
        self._told = Event()
        self._thread = Thread(target=self._run, name="posting", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more. A message that is on its way has `GRACE`; later it is sent once more."""
        self._told.set()
        if self._thread.is_alive():
            self._thread.join(GRACE)

    def _run(self) -> None:
        while not self._told.wait(self._every):
            try:
                self._pass()
            except Exception:
                log.exception("no report was made or sent; it is tried again")

    def _pass(self) -> None:
        agreed = self._agreement.now()
        if agreed.apart:
            return  # the tick tells of it
        for name, error in self._rounds.look(agreed.at).items():
            log.error("no report of %s; it is tried again: %s", name, error, exc_info=error)
        began = time.monotonic()

        def goes_on() -> bool:
            return not self._told.is_set() and time.monotonic() - began < LONGEST

        done = deliver(self._service, self._reports.write, self._by, goes_on, self._silent)
        self._silent = done.silent
        for line in done.failed:
            log.warning("%s", line)
