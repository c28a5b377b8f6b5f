"""When a window occurs at a site, without earlier windows' hours."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from rollout.core.calendar.opening_hours import list_open_spans
from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import join_words

TimeSpan = tuple[datetime, datetime]
LOOK_BACK, LOOK_AHEAD = timedelta(days=2), timedelta(days=9)
AROUND_THE_CLOCK: Final = "Around the clock"
NOT_SOON: Final = "Not within the next week"


@dataclass(frozen=True, slots=True)
class WindowTimes:
    """Current or next occurrence of a window at a site.

    Attributes:
        start, end: of the current or next occurrence, or None.
        text: a text instead of it.
        now: whether it is open.
        hours: as in the policy, or "".
        condition_text: required case attributes, in words, or "".
    """

    start: datetime | None
    end: datetime | None
    text: str
    now: bool
    hours: str
    condition_text: str


def compute_window_times(policy: Policy, cell: Cell, at: datetime) -> WindowTimes:
    """Return the occurrence of a cell's window around an instant.

    Hours of earlier windows are subtracted, unless those also require attributes of a case.
    """
    site, first, last = policy.sites_by_id[cell.site], at - LOOK_BACK, at + LOOK_AHEAD
    window = next(item for item in policy.windows if item.id == cell.window)
    earlier = takewhile(lambda item: item.id != cell.window, policy.windows)
    excluded = [
        span_item
        for other_window in earlier
        if not other_window.when
        for span_item in list_open_spans(other_window.hours, site, first, last)
    ]
    remaining = subtract_spans(list_open_spans(window.hours, site, first, last), excluded)
    condition_text = join_words(
        [f"{name} is {' or '.join(values)}" for name, values in window.when.items()]
    )
    span = next((item for item in remaining if item[1] > at), None)
    if span is None:
        return WindowTimes(
            None, None, NOT_SOON, now=False, hours=window.hours or "", condition_text=condition_text
        )
    if span[0] <= first and span[1] >= last:
        return WindowTimes(
            None, None, AROUND_THE_CLOCK, now=True, hours="", condition_text=condition_text
        )
    is_now = span[0] <= at
    return WindowTimes(
        *span,
        "Now" if is_now else "Next",
        now=is_now,
        hours=window.hours or "",
        condition_text=condition_text,
    )


def subtract_spans(spans: Iterable[TimeSpan], excluded: Iterable[TimeSpan]) -> list[TimeSpan]:
    """Subtract time spans from time spans.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> hour = timedelta(hours=1)
    >>> left = subtract_spans([(noon, noon + 5 * hour)], [(noon + hour, noon + 2 * hour)])
    >>> [((a - noon) // hour, (b - noon) // hour) for a, b in left]
    [(0, 1), (2, 5)]
    """
    remaining = list(spans)
    for since, until in excluded:
        pieces = (piece for a, b in remaining for piece in ((a, min(b, since)), (max(a, until), b)))
        remaining = [(a, b) for a, b in pieces if a < b]
    return remaining
