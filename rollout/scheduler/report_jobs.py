"""The jobs that make due reports and send them.

While clocks disagree, incidents are still reported and sent, at the earliest clock; the rest waits.
"""

import logging
import time
from dataclasses import replace
from threading import Event
from typing import Final

from rollout.services.delivery.delivery import ReportPublisher, deliver_due_reports
from rollout.services.delivery.sending import MessageSender, send_in_process
from rollout.services.engine.clock_check import CheckedClock, ClockCheck
from rollout.services.engine.service import Service
from rollout.services.reports.schedule import ON_INCIDENT, ReportScheduler
from rollout.store.database.errors import DatabaseUnavailableError

MAX_PASS_TIME: Final = 60.0  # seconds of deliveries before due ones are listed again
log = logging.getLogger("rollout.scheduler")


class DueReportJob:
    """A replica's passes over due reports; the scheduler runs one at a time."""

    def __init__(self, service: Service, owner: str) -> None:
        """Build the job without running it; `owner` is the name in the claims of reports."""
        self._clock_check = ClockCheck(service.database, service.clock)
        checked_service = replace(service, clock=CheckedClock(self._clock_check, service.clock))
        publisher = ReportPublisher(checked_service)
        self._report_rounds = ReportScheduler(checked_service, publisher.make_report, owner)

    def run(self) -> None:
        """Make the due reports and queue their deliveries."""
        clock = self._clock_check.now()
        errors = self._report_rounds.run_report_jobs(clock.at, incidents_only=bool(clock.skew_text))
        for name, error in errors.items():
            if not isinstance(error, DatabaseUnavailableError):
                log.error("no report of %s; it is tried again: %s", name, error, exc_info=error)


class DeliveryJob:
    """A replica's passes over due deliveries; the scheduler runs one at a time."""

    def __init__(self, service: Service, send_message: MessageSender = send_in_process) -> None:
        """Build the job without running it."""
        self._clock_check = ClockCheck(service.database, service.clock)
        self._service = replace(service, clock=CheckedClock(self._clock_check, service.clock))
        self._send = send_message
        self._publisher = ReportPublisher(self._service)
        self._silent_channels: frozenset[str] = frozenset()
        self._stop_event = Event()

    def run(self) -> None:
        """Send what is due."""
        is_clock_apart = bool(self._clock_check.now().skew_text)
        started_at = time.monotonic()

        def has_time_left() -> bool:
            return not self._stop_event.is_set() and time.monotonic() - started_at < MAX_PASS_TIME

        result = deliver_due_reports(
            self._service,
            self._publisher.render_report,
            self._send,
            has_time_left,
            self._silent_channels,
            reasons={ON_INCIDENT} if is_clock_apart else None,
        )
        self._silent_channels = result.failed_channels
        for line in result.failures:
            log.warning("%s", line)

    def stop(self) -> None:
        """Let the running pass end after the message that is being sent."""
        self._stop_event.set()
