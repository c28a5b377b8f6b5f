"""The time from which an event holds for units: the slot that a tick judged, else its own."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from rollout.core.scope.events import ClockCorrected, LedgerEvent


def compute_effective_time(event: LedgerEvent, previous: datetime | None) -> datetime:
    """Return from when an event holds for units; `previous` is that of the event before.

    A tick writes later than its slot began, but its evidence ends there: units of the slot belong
    to what it decided. Where a user acted in between, it holds from that action on. An event that a
    clock behind wrote holds no earlier than the one before. A correction of the clock holds from
    the corrected time.
    """
    if isinstance(event, ClockCorrected):
        return event.at
    since = event.slot or event.at
    return since if previous is None else max(previous, since)


def list_effective_times(
    events: Iterable[LedgerEvent],
) -> Iterator[tuple[LedgerEvent, datetime]]:
    """Yield the events of a ledger, from its first, with the time from which each holds."""
    previous: datetime | None = None
    for event in events:
        previous = compute_effective_time(event, previous)
        yield event, previous
