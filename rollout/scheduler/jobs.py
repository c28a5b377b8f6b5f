"""Background jobs, all woken by one scheduler.

APScheduler's own job store would run each job once in each replica. Here every replica checks every
second which slots are due, and the database gives each slot to one of them. Heartbeats and retries
of stops have a thread of their own (`heartbeats`), so that no job can take autonomy away.
"""

import logging
from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from rollout.scheduler.heartbeats import HeartbeatWorker
from rollout.scheduler.job_threads import DaemonThreadExecutor
from rollout.scheduler.notification_job import NotificationJob
from rollout.scheduler.report_jobs import DeliveryJob, DueReportJob
from rollout.services.delivery.sending import ChannelMessage, MessageSender, send_in_process
from rollout.services.engine.clock_check import ClockCheck, report_clock_skew
from rollout.services.engine.evidence_sampling import sample_evidence
from rollout.services.engine.retention import delete_expired
from rollout.services.engine.service import Service
from rollout.services.engine.ticks import TickScheduler
from rollout.services.ledger.checkpoints import CheckpointPublisher
from rollout.store.database.errors import DatabaseUnavailableError

TICK_INTERVAL: Final = 1.0
PASS_INTERVAL: Final = 10.0
MINUTE, HOUR = 60.0, 3600.0
STOP_GRACE: Final = 10.0  # seconds to finish a report or a message at a stop
WAKING_RULES: Final = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
"""Of all jobs: a late run is made up for, several missed ones become one, none overlaps itself."""
POOL, LONG = "default", "long"
"""Executors: a stop waits for jobs of the pool to their end, and for long ones `STOP_GRACE`."""
RETENTION_RUNS_PER_DAY = 24
log = logging.getLogger("rollout.scheduler")
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # skipped passes are normal


class PlannedJob(NamedTuple):
    """A job and how often it is woken, in seconds."""

    id: str
    interval: float
    run: Callable[[], None]
    executor: str = POOL


class JobScheduler:
    """A replica's scheduler."""

    def __init__(
        self,
        service: Service,
        owner: str,
        interval: float = TICK_INTERVAL,
        observe_tick: Callable[[str, float], object] = lambda _rollout, _seconds: None,
        *,
        pass_interval: float = PASS_INTERVAL,
        send_message: MessageSender = send_in_process,
    ) -> None:
        """Build the scheduler without starting it.

        `owner` is the name in the claims of slots and reports. `observe_tick` gets the rollout and
        the seconds of each tick, for metrics.
        """
        self._service, self._observe_tick = service, observe_tick
        self._tick_runner = TickScheduler(service.database, owner)
        self._clock_check = ClockCheck(service.database, service.clock)
        self._heartbeat_worker = HeartbeatWorker(service, owner)
        self._report_job = DueReportJob(service, owner)
        self._delivery_job = DeliveryJob(service, send_message)
        self._notification_job = NotificationJob(service, send_message)
        self._checkpoint_publisher = CheckpointPublisher(service, self._send_checkpoints)
        self._is_clock_apart = False
        self._retention_runs = 0
        self._scheduler = _build_scheduler(
            (
                PlannedJob("tick", interval, self._run_tick),
                PlannedJob("reports", pass_interval, self._report_job.run, LONG),
                PlannedJob("deliveries", pass_interval, self._delivery_job.run, LONG),
                PlannedJob("notifications", pass_interval, self._notification_job.run, LONG),
                PlannedJob("uses", MINUTE, self._record_key_uses),
                PlannedJob("callers", MINUTE, service.authenticator.refresh),
                PlannedJob("tidy", HOUR, self._run_retention),
                PlannedJob("evidence", HOUR, self._check_evidence),
                PlannedJob("checkpoints", HOUR, self._publish_checkpoints),
            )
        )

    def start(self) -> None:
        """Start all jobs."""
        self._heartbeat_worker.start()
        self._scheduler.start()

    def stop(self) -> None:
        """Finish the running jobs and stop; a report or a message gets `STOP_GRACE` to finish."""
        self._notification_job.stop()
        self._delivery_job.stop()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
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
        reports = sample_evidence(self._service.database, self._service.clock.now())
        for name, report in reports.items():
            log.error(
                "evidence of %s changed, see its incident; run `rollout doctor --rebuild`;"
                " this sample: %s",
                *(name, report.summarize()),
            )

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


def _build_scheduler(jobs: tuple[PlannedJob, ...]) -> BackgroundScheduler:
    """Return a scheduler with a thread for each job, so that none waits for another."""
    scheduler = BackgroundScheduler(
        timezone="UTC",
        job_defaults=WAKING_RULES,
        executors={POOL: ThreadPoolExecutor(len(jobs)), LONG: DaemonThreadExecutor(STOP_GRACE)},
    )
    for job in jobs:
        scheduler.add_job(
            _log_errors(job.id, job.run),
            "interval",
            seconds=job.interval,
            id=job.id,
            executor=job.executor,
        )
    return scheduler


def _log_errors(job_id: str, run: Callable[[], None]) -> Callable[[], None]:
    """Return the job's function with errors logged instead of raised."""

    def run_job() -> None:
        try:
            run()
        except DatabaseUnavailableError:
            log.debug("%s waits for the database", job_id)  # the outage is logged once
        except Exception:
            log.exception("job %s failed; it is tried again", job_id)

    return run_job
