"""APScheduler in memory, one in every replica: it passes the time in and calls a service.

Its own job store would run each job once in each replica. Here every replica looks every second
which slots are due, and the database gives each slot to one of them.
"""

import logging
import time
from collections.abc import Callable
from functools import wraps
from threading import Event, Thread

from apscheduler.schedulers.background import BackgroundScheduler

from rollout.services.delivery.delivery import ReportsOut, deliver
from rollout.services.delivery.sending import Send, send
from rollout.services.engine.clock_check import Agreement, tell
from rollout.services.engine.retention import tidy
from rollout.services.engine.service import Service
from rollout.services.engine.ticks import Ticking
from rollout.services.reports.schedule import ReportRounds

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
        clock = self._agreement.now()
        if clock.apart:
            return  # the tick tells of it
        for name, error in self._rounds.look(clock.at).items():
            log.error("no report of %s; it is tried again: %s", name, error, exc_info=error)
        started_at = time.monotonic()

        def goes_on() -> bool:
            return not self._told.is_set() and time.monotonic() - started_at < LONGEST

        result = deliver(self._service, self._reports.write, self._by, goes_on, self._silent)
        self._silent = result.silent
        for line in result.failed:
            log.warning("%s", line)


MINUTE, HOUR = 60, 3600
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # a pass that is skipped is not missed


class Waking:
    """One replica's scheduler."""

    def __init__(self, service: Service, owner: str, every: float = 1.0) -> None:
        """Start nothing yet.

        Args:
            service: the replica.
            owner: by which the slots that it claims are known.
            every: seconds between two looks.
        """
        self._service = service
        self._ticking = Ticking(service.database, owner)
        self._agreement = Agreement(service.database, service.clock)
        self._posting = Posting(service, owner)
        self._apart = False
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_job(self._loud(self._tick), "interval", seconds=every, id="tick")
        self._scheduler.add_job(self._loud(self._tidy), "interval", seconds=HOUR, id="tidy")
        self._scheduler.add_job(self._loud(self._note), "interval", seconds=MINUTE, id="uses")

    def start(self) -> None:
        """Begin to look."""
        self._scheduler.start()
        self._posting.start()

    def stop(self) -> None:
        """Finish the pass that runs, and look no more."""
        self._scheduler.shutdown(wait=True)
        self._posting.stop()

    def _tick(self) -> None:
        clock = self._agreement.now()
        if clock.apart and not self._apart:
            log.error("%s; until then only narrowing is written", clock.apart)
            tell(self._service.database, clock)
        self._apart = bool(clock.apart)
        now = None if self._apart else self._service.clock.now
        result = self._ticking.look(clock.at, narrow_only=self._apart, now=now)
        for name, error in result.failed.items():
            log.error("tick of %s failed; it is tried again: %s", name, error, exc_info=error)

    def _tidy(self) -> None:
        tidy(self._service.database, self._service.clock.now())

    def _note(self) -> None:
        self._service.door.note_uses(self._service.clock.now())

    def _loud(self, job: Callable[[], None]) -> Callable[[], None]:
        """Return a job whose failure is told and ends nothing."""

        @wraps(job)
        def told() -> None:
            try:
                job()
            except Exception:
                log.exception("%s failed; it is tried again", job.__name__)

        return told
