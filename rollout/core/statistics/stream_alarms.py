"""Alarms over several streams of units at once: values of an attribute, or shares of values.

Each stream has a detector of its own (`detector`). Its sum grows in the mean by at most one for
each of the stream's units while the stream is within its limit. So the sums of all streams together
grow by at most `overlap` for each unit, where every unit is in at most `overlap` streams. An alarm
needs one sum of `false_alarm_every * overlap`: the mean number of units between two false alarms is
at least `false_alarm_every`, whatever the number of streams and however often the guard is read.

The stream with the largest sum is named. The others start anew with it, once it has recovered.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from rollout.core.statistics.detector import compute_agreement_log_factors, compute_log_path

FALSE_RECOVERY_EVERY = 1_000.0  # mean units of a stream until a false recovery, at least
BEFORE_ALL_SLOTS = -(2**62)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class UnitStream:
    """Units of one stream by slot, each slot with at least one.

    Attributes:
        slots: ascending.
        good_counts, bad_counts: units of each slot within and beyond.
        limit: largest acceptable share of bad units, in the open interval (0, 1).
    """

    slots: Ints
    good_counts: Ints
    bad_counts: Ints
    limit: float

    def select_after(self, slot: int) -> "UnitStream":
        """Return the units of later slots."""
        start = int(np.searchsorted(self.slots, slot, side="right"))
        return UnitStream(
            self.slots[start:], self.good_counts[start:], self.bad_counts[start:], self.limit
        )

    def compute_log_path(self) -> NDArray[np.float64]:
        """Return the log of the detector's sum after each slot."""
        compared = self.good_counts + self.bad_counts
        factors = compute_agreement_log_factors(
            self.good_counts, compared, reference=1 - self.limit
        )
        return compute_log_path(factors, compared)

    def read_log_sum(self, slot: int) -> float:
        """Return the log of the detector's sum at a slot, −∞ before its first unit."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        return float(self.compute_log_path()[position]) if position >= 0 else -inf

    def find_proof(self) -> NDArray[np.bool_]:
        """Return after which slots the share of bad units is shown to be within the limit.

        The same detector, turned round: it watches whether the bad units have become fewer.
        """
        compared = self.good_counts + self.bad_counts
        factors = compute_agreement_log_factors(self.bad_counts, compared, reference=self.limit)
        return np.asarray(compute_log_path(factors, compared) >= log(FALSE_RECOVERY_EVERY))


@dataclass(frozen=True, slots=True)
class StreamAlarm:
    """From an alarm to its recovery.

    Attributes:
        slot: of the alarm.
        stream: number of the named stream, the clearest one.
        bad, units: of the named stream, from the detectors' start to the alarm.
        end: slot from which the alarm is over; None while it lasts.
    """

    slot: int
    stream: int
    bad: int
    units: int
    end: int | None


def list_alarm_episodes(
    streams: Sequence[UnitStream], *, false_alarm_every: float, overlap: int = 1
) -> Iterator[StreamAlarm]:
    """Yield the alarms in order; all detectors start anew when one is over.

    An alarm is over when the named stream is shown to be within its limit. While it is beyond, the
    mean number of its units until that happens falsely is at least 1,000.

    Args:
        streams: in any order.
        false_alarm_every: mean number of units between false alarms, at least.
        overlap: in how many streams one unit is at most.
    """
    start = BEFORE_ALL_SLOTS
    while streams:
        later = [stream.select_after(start) for stream in streams]
        slot = _find_alarm_slot(later, log(false_alarm_every * overlap))
        if slot is None:
            return
        log_sums = [stream.read_log_sum(slot) for stream in later]
        clearest = log_sums.index(max(log_sums))
        until = int(np.searchsorted(later[clearest].slots, slot, side="right"))
        bad = int(later[clearest].bad_counts[:until].sum())
        units = bad + int(later[clearest].good_counts[:until].sum())
        end = find_recovery_slot(streams[clearest], after=slot)
        yield StreamAlarm(slot, clearest, bad, units, end)
        if end is None:
            return
        start = end


def _find_alarm_slot(streams: Sequence[UnitStream], needed: float) -> int | None:
    """Return the first slot in which any detector's sum is large enough."""
    alarm_slots = [
        int(stream.slots[reached.argmax()])
        for stream in streams
        if (reached := stream.compute_log_path() >= needed).any()
    ]
    return min(alarm_slots, default=None)


def find_recovery_slot(stream: UnitStream, *, after: int) -> int | None:
    """Return the first later slot at which the stream is shown to be within its limit."""
    later = stream.select_after(after)
    is_proven = later.find_proof()
    return int(later.slots[is_proven.argmax()]) if is_proven.any() else None


def find_first_proof(streams: Sequence[UnitStream]) -> int | None:
    """Return the first slot at which each stream with units by then is within its limit.

    A stream that begins later plays no part: nobody could know of it then.
    """
    begun_streams = [stream for stream in streams if len(stream.slots)]
    if not begun_streams:
        return None
    slots = np.unique(np.concatenate([stream.slots for stream in begun_streams]))
    is_proven = np.ones(len(slots), dtype=bool)
    for stream in begun_streams:
        positions = np.searchsorted(stream.slots, slots, side="right") - 1
        is_proven &= (positions < 0) | stream.find_proof()[np.maximum(positions, 0)]
    return int(slots[is_proven.argmax()]) if is_proven.any() else None
