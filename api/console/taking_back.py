"""Which answers a reviewer may take back here, and why not."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from rollout.services.own_verdicts import OwnVerdict

STILL: Final = timedelta(seconds=30)
LAST: Final = 2
"""The last so many answers: each may be taken back until the next but one is given."""

TOLD: Final = "You have been shown what the model said of it, so your answer stands."
LATER: Final = "You have answered others since, so your answer stands."


def stands_because(verdict: OwnVerdict, last: Sequence[OwnVerdict], at: datetime) -> str:
    """Return why an answer can't be taken back any more, "" where it can.

    Args:
        verdict: the answer.
        last: what the same person answered last, the newest first.
        at: now.
    """
    if verdict.stands:
        return TOLD
    among = any(verdict.review == one.review for one in last[:LAST])
    return "" if among or at - verdict.at <= STILL else LATER


def to_undo(
    last: Sequence[OwnVerdict], at: datetime, *, before: int | None = None
) -> OwnVerdict | None:
    """Return the answer that Undo brings back, None where there is none.

    Args:
        last: what somebody answered last, the newest first.
        at: now.
        before: number of the review that was brought back already: the one before it is next.
    """
    numbers = [one.review for one in last]
    start = numbers.index(before) + 1 if before in numbers else 0
    found = next(iter(last[start:]), None)
    return None if found is None or stands_because(found, last, at) else found
