"""When a user's notifications may be sent: quiet hours and the times of digests."""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

DIGEST_TIME: Final = time(8)
"""Local time of digests."""
MONDAY: Final = 0


@dataclass(frozen=True, slots=True)
class QuietHours:
    """Local hours of each day from `start` to before `end`, possibly over midnight."""

    timezone: str
    start: time
    end: time

    def contains(self, at: datetime) -> bool:
        """Return whether a time is quiet.

        >>> nights = QuietHours("Europe/Vienna", time(22), time(7))
        >>> [nights.contains(datetime(2027, 6, 1, hour, tzinfo=UTC)) for hour in (4, 5, 19, 20)]
        [True, False, False, True]
        """
        local_time = at.astimezone(ZoneInfo(self.timezone)).time()
        if self.start <= self.end:
            return self.start <= local_time < self.end
        return local_time >= self.start or local_time < self.end

    def find_send_time(self, at: datetime) -> datetime:
        """Return the first time from `at` on that is not quiet."""
        if not self.contains(at):
            return at
        local = at.astimezone(ZoneInfo(self.timezone))
        day = local.date() + timedelta(days=1 if local.time() >= self.end else 0)
        ends = (
            datetime.combine(day, self.end.replace(fold=fold), ZoneInfo(self.timezone))
            for fold in (0, 1)  # where clocks go back, the end comes twice
        )
        return next(end.astimezone(UTC) for end in ends if end.astimezone(UTC) > at)


def find_digest_time(timezone: str, at: datetime, *, weekly: bool) -> datetime:
    """Return the last time up to `at` of a daily digest, or of Monday's.

    >>> at = datetime(2027, 6, 3, 5, 59, tzinfo=UTC)  # a Thursday
    >>> [str(find_digest_time("Europe/Vienna", at, weekly=weekly)) for weekly in (False, True)]
    ['2027-06-02 08:00:00+02:00', '2027-05-31 08:00:00+02:00']
    """
    zone = ZoneInfo(timezone)
    day = at.astimezone(zone).date()
    while (weekly and day.weekday() != MONDAY) or datetime.combine(day, DIGEST_TIME, zone) > at:
        day -= timedelta(days=1)
    return datetime.combine(day, DIGEST_TIME, zone)
