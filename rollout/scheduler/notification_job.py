"""The job that queues and sends notifications of users.

While clocks disagree, what is urgent still goes out, at the earliest clock; the rest waits.
"""

import logging
import time
from dataclasses import replace
from threading import Event
from typing import Final

from rollout.services.delivery.sending import MessageSender, send_in_process
from rollout.services.engine.clock_check import CheckedClock, ClockCheck
from rollout.services.engine.service import Service
from rollout.services.notifications.kinds import URGENT_KINDS
from rollout.services.notifications.planning import NotificationPlanner
from rollout.services.notifications.sending import send_due_notifications

MAX_PASS_TIME: Final = 60.0  # seconds of sending before new notifications are queued
log = logging.getLogger("rollout.scheduler")


class NotificationJob:
    """A replica's passes over notifications; the scheduler runs one at a time."""

    def __init__(self, service: Service, send_message: MessageSender = send_in_process) -> None:
        """Build the job without running it."""
        self._clock_check = ClockCheck(service.database, service.clock)
        self._service = replace(service, clock=CheckedClock(self._clock_check, service.clock))
        self._send = send_message
        self._planner = NotificationPlanner(self._service)
        self._failed_channels: frozenset[str] = frozenset()
        self._stop_event = Event()

    def run(self) -> None:
        """Queue what is new, then send what is due."""
        clock = self._clock_check.now()
        is_clock_apart = bool(clock.skew_text)
        self._planner.queue_notifications(clock.at, urgent_only=is_clock_apart)
        started_at = time.monotonic()

        def has_time_left() -> bool:
            return not self._stop_event.is_set() and time.monotonic() - started_at < MAX_PASS_TIME

        result = send_due_notifications(
            self._service,
            self._send,
            has_time_left,
            self._failed_channels,
            kinds=URGENT_KINDS if is_clock_apart else None,
        )
        self._failed_channels = result.failed_channels
        for line in result.failures:
            log.warning("%s", line)

    def stop(self) -> None:
        """Let the running pass end after the message that is being sent."""
        self._stop_event.set()
