"""APScheduler in memory, one in every replica: it passes the time in and calls a service.

Its own job store would run each job once in each replica. Here every replica looks every second
which slots are due, and the database gives each slot to one of them.
"""

import logging
from collections.abc import Callable
from functools import wraps

from apscheduler.schedulers.background import BackgroundScheduler

from rollout.scheduler.posting import Posting
from rollout.services.agreement import Agreement, tell
from rollout.services.service import Service
from rollout.services.ticking import Ticking
from rollout.services.tidying import tidy

MINUTE, HOUR = 60, 3600
log = logging.getLogger("rollout.scheduler")
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
        agreed = self._agreement.now()
        if agreed.apart and not self._apart:
            log.error("%s; until then only narrowing is written", agreed.apart)
            tell(self._service.database, agreed)
        self._apart = bool(agreed.apart)
        now = None if self._apart else self._service.clock.now
        looked = self._ticking.look(agreed.at, narrow_only=self._apart, now=now)
        for name, error in looked.failed.items():
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
