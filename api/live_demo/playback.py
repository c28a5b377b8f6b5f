"""Speed of the live demo, which users change while it runs."""

import threading
import time
from dataclasses import dataclass, field
from datetime import timedelta

MIN_SPEED, MAX_SPEED = 1, 3_600
DEFAULT_SPEED = 360
"""Times faster than the wall clock: an hour of the story takes 10 s."""
OFFERED_SPEEDS = (60, 360, 1_440)


@dataclass(slots=True)
class Playback:
    """Whether and how fast the story goes on; threads may share it."""

    speed: int = DEFAULT_SPEED
    is_paused: bool = False
    is_over: bool = False
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)

    def play_at(self, speed: int) -> None:
        """Go on at a speed.

        Raises:
            ValueError: the speed is out of range.
        """
        check_speed(speed)
        with self._changed:
            self.speed, self.is_paused = speed, False
            self._changed.notify_all()

    def pause(self) -> None:
        """Hold the story; sign-in, reviews and approvals go on."""
        with self._changed:
            self.is_paused = True
            self._changed.notify_all()

    def wait_until_due(self, started_at: float, span: timedelta, *, patience: float) -> bool:
        """Wait until `span` of the story after `started_at`; return whether it has passed.

        Args:
            started_at: when the span began, on the monotonic clock.
            patience: most seconds to wait.
        """
        give_up_at = time.monotonic() + patience
        with self._changed:
            while True:
                now = time.monotonic()
                due_at = started_at + span.total_seconds() / self.speed
                is_held = self.is_paused or self.is_over
                if not is_held and now >= due_at:
                    return True
                if now >= give_up_at:
                    return False
                until = give_up_at if is_held else min(due_at, give_up_at)
                self._changed.wait(until - now)


def check_speed(speed: int) -> None:
    """Raise unless the demo can run at a speed.

    Raises:
        ValueError: the speed is out of range; the text names the range.
    """
    if not MIN_SPEED <= speed <= MAX_SPEED:
        raise ValueError(
            f"speed {speed} is out of range: give {MIN_SPEED} (real time) to {MAX_SPEED}"
            " (an hour of the story in a second)"
        )
