"""Which labels are checked when: three batches in two halves each, side by side for six weeks."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
from digit_readings import (
    RANDOM_ERRORS,
    AnnotatedBatch,
    annotate_batch,
    load_digit_set,
    open_stream,
)

ZONE: Final = ZoneInfo("Asia/Kolkata")
FIRST_DAY: Final = date(2025, 10, 6)  # a Monday
WEEKS, WORKDAYS, OPENS, CLOSES = 6, 5, 9, 18  # when labels are checked
HALVES: Final = ("first", "second")


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """One label that is checked: its number in the batch, and when."""

    batch: str
    number: int
    at: datetime

    @property
    def key(self) -> str:
        """Return the key that all files share."""
        return f"{self.batch[-1]}{self.number:04}"


@dataclass(frozen=True)
class CleaningStory:
    """The batches, and all checks in order of time."""

    seed: int
    batches: dict[str, AnnotatedBatch]
    checks: list[LabelCheck]


def make_story(seed: int) -> CleaningStory:
    """Return what happens, the same for the same seed."""
    digit_set = load_digit_set(seed)
    batches = {name: annotate_batch(digit_set, name, seed) for name in RANDOM_ERRORS}
    checks = [
        LabelCheck(name, int(number), at)
        for name, batch in batches.items()
        for half in range(len(HALVES))
        for number, at in _plan_checks(batch, half, open_stream(seed, f"checks {name} {half}"))
    ]
    return CleaningStory(seed, batches, sorted(checks, key=lambda check: (check.at, check.key)))


def _plan_checks(
    batch: AnnotatedBatch, half: int, stream: np.random.RandomState
) -> Iterator[tuple[int, datetime]]:
    """Yield the labels of a half in the order in which they are checked, as many each day."""
    numbers = stream.permutation(np.flatnonzero(batch.halves == half))
    days = WEEKS * WORKDAYS
    for position, number in enumerate(numbers):
        weeks, weekday = divmod(position * days // len(numbers), WORKDAYS)
        day = FIRST_DAY + timedelta(weeks=weeks, days=weekday)
        second = int(stream.randint((CLOSES - OPENS) * 3600))
        local = datetime.combine(day, time(OPENS), ZONE) + timedelta(seconds=second)
        yield number, local.astimezone(UTC)


def has_wrong_label(story: CleaningStory, check: LabelCheck) -> bool:
    """Return whether the label as annotated is wrong."""
    batch = story.batches[check.batch]
    return bool(batch.given[check.number] != batch.digits[check.number])
