"""Background jobs: ticks, retention, checks of evidence, checkpoints, reports, notifications.

APScheduler's own job store would run each job once in each replica. Here every replica checks every
second which slots are due, and the database gives each slot to one of them.
"""

import logging
import time
from collections.abc import Callable
from functools import wraps
from hashlib import sha256
from threading import Event, Thread

from apscheduler.schedulers.background import BackgroundScheduler

from rollout.scheduler.heartbeats import HeartbeatWorker
from rollout.scheduler.notification_job import NotificationJob
from rollout.services.delivery.delivery import ReportPublisher, deliver_due_reports
from rollout.services.delivery.sending import ChannelMessage, MessageSender, send_in_process
from rollout.services.engine.clock_check import ClockCheck, report_clock_skew
from rollout.services.engine.evidence_sampling import sample_evidence
from rollout.services.engine.retention import delete_expired
from rollout.services.engine.service import Service
from rollout.services.engine.ticks import TickScheduler
from rollout.services.ledger.checkpoints import CheckpointPublisher
from rollout.services.reports.schedule import ReportScheduler
from rollout.store.database.errors import DatabaseUnavailableError

PASS_INTERVAL = 10.0  # seconds between two passes
STOP_GRACE = 10.0  # seconds to finish a delivery at a stop
MAX_PASS_TIME = 60.0  # seconds of deliveries before due reports are listed again
log = logging.getLogger("rollout.scheduler")


class ReportWorker:
    """A replica's thread that makes and sends reports."""

    def __init__(
        self,
        service: Service,
        owner: str,
        *,
        send_message: MessageSender = send_in_process,
        interval: float = PASS_INTERVAL,
    ) -> None:
        """Build the worker without starting it.

        `owner` is the name in the claims of reports.
        """
        self._service, self._send, self._interval = service, send_message, interval
        self._report_builder = ReportPublisher(service)
        self._report_rounds = ReportScheduler(service, self._report_builder.make_report, owner)
        self._clock_check = ClockCheck(service.database, service.clock)
        self._silent_channels: frozenset[str] = frozenset()
        self._stop_event = Event()
        self._thread = Thread(target=self._run, name="posting", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the jobs. A message in delivery gets `STOP_GRACE` to finish."""
        self._stop_event.set()
        if self._thread.is_alive():
            self._thread.join(STOP_GRACE)

    def _run(self) -> None:
        while not self._stop_event.wait(self._interval):
            try:
                self._run_pass()
            except DatabaseUnavailableError:
                log.debug("reports wait for the database")  # the outage is logged once
            except Exception:
                log.exception("no report was made or sent; it is tried again")

    def _run_pass(self) -> None:
        clock = self._clock_check.now()
        if clock.skew_text:
            return  # the tick reports it
        for name, error in self._report_rounds.run_report_jobs(clock.at).items():
            if isinstance(error, DatabaseUnavailableError):
                continue
            log.error("no report of %s; it is tried again: %s", name, error, exc_info=error)
        started_at = time.monotonic()

        def has_time_left() -> bool:
            return not self._stop_event.is_set() and time.monotonic() - started_at < MAX_PASS_TIME

        result = deliver_due_reports(
            self._service,
            self._report_builder.render_report,
            self._send,
            has_time_left,
            self._silent_channels,
        )
        self._silent_channels = result.failed_channels
        for line in result.failures:
            log.warning("%s", line)


MINUTE, HOUR = 60, 3600
RETENTION_RUNS_PER_DAY = 24
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # skipped passes are normal


class JobScheduler:
    """A replica's scheduler."""

    def __init__(
        self,
        service: Service,
        owner: str,
        interval: float = 1.0,
        observe_tick: Callable[[str, float], object] = lambda _rollout, _seconds: None,
    ) -> None:
        """Build the scheduler without starting it.

        `owner` is the name in the claims of slots. `observe_tick` gets the rollout and the seconds
        of each tick, for metrics.
        """
        self._service, self._observe_tick = service, observe_tick
        self._tick_runner = TickScheduler(service.database, owner)
        self._clock_check = ClockCheck(service.database, service.clock)
        self._report_worker = ReportWorker(service, owner)
        self._heartbeat_worker = HeartbeatWorker(service, owner)
        self._notification_job = NotificationJob(service)
        self._checkpoint_publisher = CheckpointPublisher(service, self._send_checkpoints)
        self._is_clock_apart = False
        self._retention_runs = 0
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        self._scheduler.add_job(
            self._log_errors(self._run_tick), "interval", seconds=interval, id="tick"
        )
        self._scheduler.add_job(
            self._log_errors(self._run_retention), "interval", seconds=HOUR, id="tidy"
        )
        self._scheduler.add_job(
            self._log_errors(self._check_evidence), "interval", seconds=HOUR, id="evidence"
        )
        self._scheduler.add_job(
            self._log_errors(self._publish_checkpoints), "interval", seconds=HOUR, id="checkpoints"
        )
        self._scheduler.add_job(
            self._log_errors(self._record_key_uses), "interval", seconds=MINUTE, id="uses"
        )
        self._scheduler.add_job(
            self._log_errors(self._notification_job.run),
            "interval",
            seconds=PASS_INTERVAL,
            id="notifications",
        )

    def start(self) -> None:
        """Start all jobs."""
        self._heartbeat_worker.start()
        self._scheduler.start()
        self._report_worker.start()

    def stop(self) -> None:
        """Finish the running job and stop."""
        self._notification_job.stop()
        self._scheduler.shutdown(wait=True)
        self._report_worker.stop()
        self._heartbeat_worker.stop()

    def _run_tick(self) -> None:
        clock = self._clock_check.now()
        if clock.skew_text and not self._is_clock_apart:
            log.error("%s; until then only narrowing is written", clock.skew_text)
            report_clock_skew(self._service.database, clock)
        self._is_clock_apart = bool(clock.skew_text)
        now = None if self._is_clock_apart else self._service.clock.now
        result = self._tick_runner.run_due_ticks(
            clock.at, narrow_only=self._is_clock_apart, get_time=now
        )
        for name, seconds in result.seconds_by_rollout.items():
            self._observe_tick(name, seconds)
        for name, error in result.errors.items():
            log.error("tick of %s failed; it is tried again: %s", name, error, exc_info=error)

    def _run_retention(self) -> None:
        is_daily_run = self._retention_runs % RETENTION_RUNS_PER_DAY == 0
        now = self._service.clock.now()
        delete_expired(self._service.database, now, with_orphans=is_daily_run)
        self._retention_runs += 1

    def _check_evidence(self) -> None:
        for name, fault in sample_evidence(
            self._service.database, self._service.clock.now()
        ).items():
            log.error("evidence of %s changed: %s; run `rollout doctor --rebuild`", name, fault)

    def _publish_checkpoints(self) -> None:
        if error := self._checkpoint_publisher.publish():
            log.warning("checkpoints were not sent; they are sent again: %s", error)

    def _send_checkpoints(self, channel: str, text: str) -> str:
        message = ChannelMessage(
            url=self._service.channels.urls[channel],
            title="Ledger checkpoints",
            body=f"Keep these lines: they show whether a ledger was rewritten.\n\n```\n{text}\n```",
            key=sha256(text.encode()).hexdigest(),
        )
        return send_in_process(message)

    def _record_key_uses(self) -> None:
        self._service.authenticator.write_last_uses(self._service.wall_clock.now())

    def _log_errors(self, job: Callable[[], None]) -> Callable[[], None]:
        """Return the job with errors logged instead of raised."""

        @wraps(job)
        def run_job() -> None:
            try:
                job()
            except DatabaseUnavailableError:
                log.debug("%s waits for the database", job.__name__)  # the outage is logged once
            except Exception:
                log.exception("%s failed; it is tried again", job.__name__)

        return run_job
