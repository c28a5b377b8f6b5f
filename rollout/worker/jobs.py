"""Background jobs of a replica, woken by one scheduler, and the thread for heartbeats and stops.

APScheduler's own job store would run each job once in each replica. Here every replica checks every
second which slots are due, and the database gives each slot to one of them.

Ticks have a process of their own, which is started when one is due and ended when it is idle. The
process that answers needs none of what counts units. What fails there ends autonomy here: a write
or a sign of damage at once, and a process that ends or says nothing within a pass counts as a
failed tick until one succeeds.

Jobs run at their intervals though the wall clock steps. APScheduler plans runs by the wall clock:
one that is an hour ahead, even for seconds, puts each job's next run off by an hour.

Heartbeats, and retries of stops that the ledger lacks, have a thread of their own. It does nothing
else, so that no tick, report or request delays it, and no job can take autonomy away.
"""

import gc
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from hashlib import sha256
from queue import Empty, SimpleQueue
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from apscheduler.executors.base import BaseExecutor, run_job
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.base import JobLookupError
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from rollout.data.database.append_failures import TICK, DatabaseUnavailableError
from rollout.data.database.rollouts import list_rollout_names
from rollout.data.database.session import Database
from rollout.features.delivery.delivery import (
    ReportPublisher,
    SendingJob,
    deliver_due_reports,
)
from rollout.features.delivery.sender import ChannelMessage, MessageSender, send_in_process
from rollout.features.ledger.ledger_reader import CheckpointPublisher
from rollout.features.process.replica_safety import ReplicaSafety
from rollout.features.reports.builder import ON_INCIDENT, ReportScheduler
from rollout.features.reports.report_work import ReportWork
from rollout.kernel.calendar.instants import from_micros, to_micros
from rollout.live.autonomy import CheckedClock, ClockCheck, report_clock_skew
from rollout.live.calendar_entries import CalendarEntries
from rollout.live.retention import delete_expired
from rollout.live.service import Service
from rollout.live.tick_results import STORAGE_RETRY_DELAY, TickPass
from rollout.live.work.user_runs import ProcessFailedError, start_process

if TYPE_CHECKING:
    from rollout.live.tick_passes import TickScheduler


COMMAND: Final = (sys.executable, "-m", "rollout.worker.tick_process")
IDLE_SECONDS: Final = 60.0
"""Without a pass; slots that follow each other sooner keep the process."""
CHECK_SECONDS: Final = 1_800.0
SILENT_SECONDS: Final = 120.0
"""A process that says nothing for so long within a pass is ended; pages are counted in seconds."""
STOP_SECONDS: Final = 10.0
"""For the running pass when the service is stopped."""
END_SECONDS: Final = 2.0
Message = Mapping[str, Any]


class TickProcess:
    """A running process of ticks, and its messages as they come; None is its end."""

    def __init__(self, command: Sequence[str], settings: Message) -> None:
        self._process = start_process(command)
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._input = self._process.stdin
        self._messages: SimpleQueue[Message | None] = SimpleQueue()
        Thread(target=self._read, args=(self._process.stdout,), daemon=True).start()
        self.send(settings)

    def send(self, message: Message) -> None:
        """Send the settings or a request; a process that has ended says so by its output."""
        with suppress(OSError):
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def wait_for_message(self, longest_seconds: float) -> Message | None:
        """Return the next message, None once it has ended or was silent for so long."""
        try:
            return self._messages.get(timeout=longest_seconds)
        except Empty:
            return None

    def has_ended(self) -> bool:
        """Return whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> int:
        """End it and return its exit code."""
        with suppress(OSError):
            self._input.close()
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _read(self, output: Any) -> None:
        for line in output:
            with suppress(ValueError):  # what a library wrote
                self._messages.put(json.loads(line))
        output.close()
        self._messages.put(None)


class TickWorker:
    """One replica's ticks, run by a process of ticks."""

    def __init__(self, database: Database, owner: str, command: Sequence[str] = COMMAND) -> None:
        """Build it without starting a process; `owner` names the replica in claims."""
        self._database, self._command = database, command
        url = database.engine.url.render_as_string(hide_password=False)
        self._settings = {"database": url, "owner": owner}
        self._process: TickProcess | None = None
        self._check_process: TickProcess | None = None
        self._next_due: dict[str, datetime] = {}
        self._last_pass = 0.0
        self._stopping = Event()

    def run_due_ticks(
        self,
        at: datetime,
        *,
        narrow_only: bool = False,
        get_time: Callable[[], datetime] | None = None,
    ) -> TickPass:
        """Let the process run every due tick, as `TickScheduler` does; start it if one may be due.

        With `get_time` the process reads the machine's clock.

        Raises:
            DatabaseUnavailableError: the database does not respond; the pass ends.
        """
        due = self._list_due(at if get_time is None else max(at, get_time()))
        if self._stopping.is_set():
            return TickPass()
        if not due:
            self._end_if_idle()
            return TickPass()
        if self._process is not None and self._process.has_ended():
            self.close()  # between passes, which loses nothing
        if self._process is None:
            self._process = TickProcess(self._command, self._settings)
        values = {"at": to_micros(at), "narrow_only": narrow_only}
        self._process.send({**values, "reads_clock": get_time is not None})
        answer, ticking = self._follow(self._process, SILENT_SECONDS)
        self._last_pass = time.monotonic()
        if answer is None:
            return self._note_end(at, ticking or due)
        if text := answer.get("unavailable"):
            raise DatabaseUnavailableError(text)
        done = answer["done"]
        self._next_due = {name: from_micros(micros) for name, micros in done["next"].items()}
        errors = {name: _build_error(facts) for name, facts in done["errors"].items()}
        return TickPass(errors=errors, seconds_by_rollout=done["seconds"])

    def sample_evidence(self, at: datetime) -> dict[str, str]:
        """Check a sample of each rollout's evidence, in a process of its own that ends.

        Ticks don't wait for it. Returns by rollout what differs.

        Raises:
            DatabaseUnavailableError: the database does not respond.
            ProcessFailedError: the process failed, or took too long.
        """
        if self._stopping.is_set():
            return {}
        self._check_process = process = TickProcess(self._command, self._settings)
        process.send({"check": to_micros(at)})
        answer, _ = self._follow(process, CHECK_SECONDS)
        process.kill()
        exit_code, self._check_process = process.close(), None
        if answer is None:
            if self._stopping.is_set():
                return {}
            raise ProcessFailedError(f"the process that checks evidence ended within ({exit_code})")
        if text := answer.get("unavailable"):
            raise DatabaseUnavailableError(text)
        return dict(answer["differing"])

    def stop(self) -> None:
        """Begin no pass any more; the running one is given `STOP_SECONDS`, a check none."""
        self._stopping.set()
        if (checking := self._check_process) is not None:
            checking.kill()
        timer = Timer(STOP_SECONDS, self._kill)
        timer.daemon = True
        timer.start()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._process is not None:
            self._process.close()
            self._process = None

    def _kill(self) -> None:
        process = self._process  # read once: the pass may end meanwhile
        if process is not None:
            process.kill()

    def _list_due(self, at: datetime) -> list[str]:
        names = list_rollout_names(self._database)
        return [name for name in names if at >= self._next_due.get(name, at)]

    def _end_if_idle(self) -> None:
        if time.monotonic() - self._last_pass > IDLE_SECONDS:
            self.close()

    def _follow(
        self, process: TickProcess, silent_seconds: float
    ) -> tuple[Message | None, list[str]]:
        """Return the message that ends a pass, None if the process ended, and what it did last."""
        ticking: list[str] = []
        while (message := process.wait_for_message(silent_seconds)) is not None:
            if "begun" in message:
                ticking = [message["begun"]]
            elif "failed" in message:
                self._database.append_failures.record_failure(*message["failed"])
            elif "succeeded" in message:
                self._database.append_failures.record_success(*message["succeeded"])
            elif "damaged" in message:
                self._database.damage_signs.text = message["damaged"]
            elif "log" in message:
                name, level, text, facts = message["log"]
                error = _build_error(facts) if facts else None
                logging.getLogger(name).log(level, "%s", text, exc_info=error)
            else:
                return message, ticking
        return None, ticking

    def _note_end(self, at: datetime, rollout_names: list[str]) -> TickPass:
        """Let humans decide where a process ended within a tick, until one succeeds."""
        assert self._process is not None  # noqa: S101 - the one that was followed
        self._process.kill()  # one that is silent
        exit_code = self._process.close()
        self._process = None
        if self._stopping.is_set():
            return TickPass()
        error = ProcessFailedError(f"the process of ticks ended within one ({exit_code})")
        for name in rollout_names:
            self._database.append_failures.record_failure(name, TICK, str(error))
            self._next_due[name] = at + STORAGE_RETRY_DELAY
        return TickPass(errors=dict.fromkeys(rollout_names, error))


def _build_error(facts: Message) -> ProcessFailedError:
    """Return an error with the traceback of the process as its note."""
    trace = facts["trace"]
    error = ProcessFailedError(trace.splitlines()[-1], facts["kind"], facts["stack"])
    error.add_note(trace)
    return error


HEARTBEAT_INTERVAL: Final = 1.0  # seconds; three fit into the age at which humans decide
HEARTBEAT_STOP_GRACE: Final = 6.0  # seconds for a write that waits for a lock
heartbeat_log = logging.getLogger("rollout.heartbeats")


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
            self._thread.join(HEARTBEAT_STOP_GRACE)

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
                heartbeat_log.error(
                    "humans decide until this replica can write again: %s: %s",
                    *(type(error).__name__, error),
                )
        elif self._last_failure and not failure:
            heartbeat_log.warning("this replica can write again")
        self._last_failure = failure


WATCH_INTERVAL: Final = 0.25  # seconds
LATE: Final = timedelta(seconds=0.5)


class FromNowTrigger(BaseTrigger):  # type: ignore[misc]
    """Plans the next run an interval from now: a step ahead leaves no missed runs to list."""

    def __init__(self, interval: timedelta) -> None:
        """Build the trigger of one job."""
        self.interval = interval

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """Return the time of the next run."""
        return now + self.interval


class JobWatch:
    """A thread that lets a job run when it is overdue by the monotonic clock, or too far ahead."""

    def __init__(self, scheduler: BackgroundScheduler) -> None:
        """Build the watch of a scheduler's jobs without starting it."""
        self._scheduler = scheduler
        self._planned: dict[str, tuple[datetime, float]] = {}
        self._is_stopping = Event()
        self._thread = Thread(target=self._run, name="job-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread."""
        self._is_stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._is_stopping.wait(WATCH_INTERVAL):
            for job in self._scheduler.get_jobs():
                if self._is_put_off(job):
                    with suppress(JobLookupError):
                        self._scheduler.modify_job(job.id, next_run_time=datetime.now(UTC))

    def _is_put_off(self, job: Any) -> bool:
        longest: timedelta = job.trigger.interval + LATE
        monotonic = time.monotonic()
        planned = self._planned.get(job.id)
        if planned is None or planned[0] != job.next_run_time:
            self._planned[job.id] = planned = job.next_run_time, monotonic
        is_overdue = timedelta(seconds=monotonic - planned[1]) > longest
        ahead: timedelta = job.next_run_time - datetime.now(UTC)
        return is_overdue or ahead > longest


class DaemonThreadExecutor(BaseExecutor):  # type: ignore[misc]
    """Runs each job in a thread of its own, which ends with the process."""

    def __init__(self, grace: float) -> None:
        """Build the executor; `grace` is how many seconds a stop waits for running jobs."""
        super().__init__()
        self._grace = grace
        self._threads: dict[str, Thread] = {}

    def _do_submit_job(self, job: Any, run_times: Sequence[datetime]) -> None:
        thread = Thread(target=self._run, args=(job, run_times), name=job.id, daemon=True)
        self._threads[job.id] = thread
        thread.start()

    def _run(self, job: Any, run_times: Sequence[datetime]) -> None:
        try:
            store = job._jobstore_alias  # noqa: SLF001 - as APScheduler's own executors
            events = run_job(job, store, run_times, self._logger.name)
        except BaseException:  # noqa: BLE001 - reported below
            self._run_job_error(job.id, *sys.exc_info()[1:])
        else:
            self._run_job_success(job.id, events)

    def shutdown(self, wait: bool = True) -> None:
        """Wait for running jobs, together as long as the grace."""
        ends_at = time.monotonic() + (self._grace if wait else 0)
        for thread in self._threads.values():
            thread.join(max(ends_at - time.monotonic(), 0))


log = logging.getLogger("rollout.scheduler")


MAX_REPORT_TIME: Final = 60.0  # seconds of deliveries before due ones are listed again


class DueReportJob:
    """A replica's passes over due reports; the scheduler runs one at a time."""

    def __init__(self, service: Service, owner: str) -> None:
        """Build the job without running it; `owner` is the name in the claims of reports."""
        self._clock_check = ClockCheck(service.database, service.clock)
        checked_service = replace(service, clock=CheckedClock(self._clock_check, service.clock))
        publisher = ReportPublisher(checked_service, ReportWork().draft_report)
        self._report_rounds = ReportScheduler(checked_service, publisher.make_report, owner)

    def run(self) -> None:
        """Make the due reports and queue their deliveries."""
        clock = self._clock_check.now()
        errors = self._report_rounds.run_report_jobs(clock.at, incidents_only=bool(clock.skew_text))
        for name, error in errors.items():
            if not isinstance(error, DatabaseUnavailableError):
                log.error("no report of %s; it is tried again: %s", name, error, exc_info=error)


class DeliveryJob(SendingJob):
    """A replica's passes over due deliveries; the scheduler runs one at a time."""

    name = "deliveries"

    def __init__(self, service: Service, send_message: MessageSender = send_in_process) -> None:
        """Build the job without running it."""
        super().__init__(service, send_message)
        self._publisher = ReportPublisher(self._service, format_page=ReportWork().format_page)

    def run(self) -> None:
        """Send what is due."""
        is_clock_apart = bool(self._clock_check.now().skew_text)
        has_time_left = partial(self._has_time_left, time.monotonic(), MAX_REPORT_TIME)
        result = deliver_due_reports(
            self._service,
            self._publisher.render_report,
            self._send,
            has_time_left,
            self._failed_channels,
            reasons={ON_INCIDENT} if is_clock_apart else None,
        )
        self._note_failures(result)


TICK_INTERVAL: Final = 1.0
PASS_INTERVAL: Final = 10.0
MINUTE, HOUR = 60.0, 3600.0
STOP_GRACE: Final = 10.0  # seconds to finish a report or a message at a stop
WAKING_RULES: Final = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
"""Of all jobs: a late run is made up for, several missed ones become one, none overlaps itself."""
POOL, LONG = "default", "long"
"""Executors: a stop waits for jobs of the pool to their end, and for long ones `STOP_GRACE`."""
RETENTION_RUNS_PER_DAY = 24
logging.getLogger("apscheduler").setLevel(logging.ERROR)  # skipped passes are normal


class PlannedJob(NamedTuple):
    """A job and how often it is woken, in seconds."""

    id: str
    interval: float
    run: Callable[[], None]
    executor: str = POOL
    runs_at_start: bool = False


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
        tick_worker: TickWorker | None = None,
        sending_jobs: Sequence[SendingJob] = (),
    ) -> None:
        """Build the scheduler without starting it.

        `owner` is the name in the claims of slots and reports. `observe_tick` gets the rollout and
        the seconds of each tick, for metrics. Without `tick_worker` this process counts units.
        `sending_jobs` run besides deliveries, or in their place, if they have that name.
        """
        self._service, self._observe_tick, self._owner = service, observe_tick, owner
        self._tick_worker = tick_worker
        self._clock_check = ClockCheck(service.database, service.clock)
        self._heartbeat_worker = HeartbeatWorker(service, owner)
        self._report_job = DueReportJob(service, owner)
        self._sending_jobs = {job.name: job for job in (DeliveryJob(service), *sending_jobs)}
        self._checkpoint_publisher = CheckpointPublisher(service, self._send_checkpoints)
        self._is_clock_apart = False
        self._calendar_entries = CalendarEntries(service.database)
        self._retention_runs = 0
        self._scheduler = _build_scheduler(
            (
                PlannedJob("tick", interval, self._run_tick),
                PlannedJob("reports", pass_interval, self._report_job.run, LONG),
                *(
                    PlannedJob(name, pass_interval, job.run, LONG)
                    for name, job in self._sending_jobs.items()
                ),
                PlannedJob("calendar", MINUTE, self._write_calendar_data),
                PlannedJob("uses", MINUTE, self._record_key_uses),
                PlannedJob("callers", MINUTE, service.authenticator.refresh),
                PlannedJob("tidy", HOUR, self._run_retention),
                PlannedJob("evidence", HOUR, self._check_evidence, LONG),
                PlannedJob("checkpoints", HOUR, self._publish_checkpoints, runs_at_start=True),
            )
        )
        self._job_watch = JobWatch(self._scheduler)

    def start(self) -> None:
        """Start all jobs."""
        self._heartbeat_worker.start()
        self._scheduler.start()
        self._job_watch.start()

    def stop(self) -> None:
        """Finish the running jobs and stop; a report or a message gets `STOP_GRACE` to finish."""
        for job in self._sending_jobs.values():
            job.stop()
        self._job_watch.stop()
        if self._tick_worker is not None:
            self._tick_worker.stop()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)
        if self._tick_worker is not None:
            self._tick_worker.close()
        self._heartbeat_worker.stop()

    @cached_property
    def _tick_runner(self) -> "TickScheduler | TickWorker":
        """Whoever runs ticks; the first tick of this process loads what it counts with."""
        if self._tick_worker is not None:
            return self._tick_worker
        from rollout.live.tick_passes import TickScheduler  # noqa: PLC0415 - see above

        gc.freeze()  # as at the start: what was imported is not scanned for garbage
        return TickScheduler(self._service.database, self._owner)

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

    def _write_calendar_data(self) -> None:
        clock = self._clock_check.now()
        if not clock.skew_text:
            self._calendar_entries.write(clock.at)

    def _check_evidence(self) -> None:
        for name, text in self._tick_runner.sample_evidence(self._service.clock.now()).items():
            log.error(
                "evidence of %s changed, see its incident; run `rollout doctor --rebuild`;"
                " this sample: %s",
                *(name, text),
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
            FromNowTrigger(timedelta(seconds=job.interval)),
            id=job.id,
            executor=job.executor,
            **({"next_run_time": datetime.now(UTC)} if job.runs_at_start else {}),
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
