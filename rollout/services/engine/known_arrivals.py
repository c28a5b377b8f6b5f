"""Arrivals of records that a process has read: the last ones, and sums of those before.

A batch becomes visible after its receipt, and a clock that was set back stamps it far in the past.
Sums by span find it without holding each arrival of half a day.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from rollout.core.calendar.instants import to_micros
from rollout.store.counting.arrivals import ARRIVAL_SPAN, ArrivalSum, StoredArrivals
from rollout.store.tables.columns import decode_instant

Arrival = tuple[datetime, int]
"""When a record was received, and of which case."""
OVERLAP: Final = timedelta(minutes=10)  # a batch may become visible so long after its instant


class KnownArrivals:
    """The arrivals that were read, of one rollout."""

    def __init__(
        self, last: Iterable[Arrival] = (), sums: Mapping[int, ArrivalSum] | None = None
    ) -> None:
        """Begin with the last arrivals, and number and sum of cases by span."""
        self.last = frozenset(last)
        self.sums = dict(sums or {})

    @classmethod
    def read_all(cls, stored: StoredArrivals, at: datetime, span: timedelta) -> "KnownArrivals":
        """Return all arrivals of a span before a time as known, but the last ones.

        Those are read again.
        """
        arrivals = cls((), stored.sum_since(at - span))
        arrivals._add(stored.list_since(at - OVERLAP), sign=-1)
        return arrivals

    def read_new(self, stored: StoredArrivals, since: datetime) -> set[int]:
        """Return the cases that arrived since some minutes before a time, if unknown."""
        arrivals = frozenset(stored.list_since(since - OVERLAP))
        new_arrivals, self.last = arrivals - self.last, arrivals
        self._add(new_arrivals, sign=1)
        return {case_id for _, case_id in new_arrivals}

    def _add(self, arrivals: Iterable[Arrival], *, sign: int) -> None:
        """Add arrivals to the sums, or take them away."""
        for at, case_id in arrivals:
            span = to_micros(at) // ARRIVAL_SPAN
            count, total = self.sums.get(span, (0, 0))
            self.sums[span] = (count + sign, total + sign * case_id)

    def read_late(self, stored: StoredArrivals, since: datetime) -> set[int]:
        """Return the cases of the spans after a time in which others arrived than are known."""
        first = -(-to_micros(since) // ARRIVAL_SPAN)
        stored_sums = stored.sum_since(decode_instant(first * ARRIVAL_SPAN))
        changed_spans = [span for span, s in stored_sums.items() if s != self.sums.get(span)]
        self.sums = stored_sums
        return {
            case_id
            for span in changed_spans
            for _, case_id in stored.list_since(
                decode_instant(span * ARRIVAL_SPAN),
                before=decode_instant((span + 1) * ARRIVAL_SPAN),
            )
        }
