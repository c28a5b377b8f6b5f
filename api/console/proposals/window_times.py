"""When a window of a policy really falls: the spans that are left to it, at a site, around now."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Final

from rollout.core.calendar.sites import Cell
from rollout.core.calendar.windows import open_spans
from rollout.core.policy.policy import Policy
from rollout.reports.text.formatting import listed

Span = tuple[datetime, datetime]
BEFORE, AFTER = timedelta(days=2), timedelta(days=9)
AROUND_THE_CLOCK: Final = "Around the clock"
NOT_SOON: Final = "Not within the next week"


@dataclass(frozen=True, slots=True)
class Falls:
    """A window at a site.

    Attributes:
        start, end: of the span that runs now or comes next; None where none does.
        says: a word in its place.
        now: whether it runs now.
        hours: as the policy writes them, "" where it writes none.
        when: what cases must have beside, in words; "" for nothing.
    """

    start: datetime | None
    end: datetime | None
    says: str
    now: bool
    hours: str
    when: str


def falls(policy: Policy, cell: Cell, at: datetime) -> Falls:
    """Return when a cell's window falls around an instant; windows that come first take their own.

    Those that ask for something in the case take what fits, which no clock tells: they are not
    taken off.
    """
    site, first, last = policy.site[cell.site], at - BEFORE, at + AFTER
    window = next(item for item in policy.windows if item.id == cell.window)
    earlier = takewhile(lambda item: item.id != cell.window, policy.windows)
    excluded = [
        span_item
        for other_window in earlier
        if not other_window.when
        for span_item in open_spans(other_window.hours, site, first, last)
    ]
    remaining = less(open_spans(window.hours, site, first, last), excluded)
    condition_text = listed(
        [f"{name} is {' or '.join(values)}" for name, values in window.when.items()]
    )
    span = next((item for item in remaining if item[1] > at), None)
    if span is None:
        return Falls(None, None, NOT_SOON, now=False, hours=window.hours or "", when=condition_text)
    if span[0] <= first and span[1] >= last:
        return Falls(None, None, AROUND_THE_CLOCK, now=True, hours="", when=condition_text)
    is_now = span[0] <= at
    return Falls(
        *span,
        "Now" if is_now else "Next",
        now=is_now,
        hours=window.hours or "",
        when=condition_text,
    )


def less(spans: Iterable[Span], taken: Iterable[Span]) -> list[Span]:
    """Return what is left of spans without those that are taken off.

    >>> noon = datetime(2027, 6, 1, 12)
    >>> hour = timedelta(hours=1)
    >>> left = less([(noon, noon + 5 * hour)], [(noon + hour, noon + 2 * hour)])
    >>> [((a - noon) // hour, (b - noon) // hour) for a, b in left]
    [(0, 1), (2, 5)]
    """
    remaining = list(spans)
    for since, until in taken:
        pieces = (piece for a, b in remaining for piece in ((a, min(b, since)), (max(a, until), b)))
        remaining = [(a, b) for a, b in pieces if a < b]
    return remaining
