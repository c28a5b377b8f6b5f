"""Alarms over several streams of units at once: values of an attribute, or shares of values.

Each stream has a detector of its own (`detector`). Its sum grows in the mean by at most one for
each of the stream's units while the stream is within its limit. So the sums of all streams together
grow by at most `overlap` for each unit, where every unit is in at most `overlap` streams. An alarm
needs one sum of `false_alarm_every * overlap`: the mean number of units between two false alarms is
at least `false_alarm_every`, whatever the number of streams and however often the guard is read.

Which streams are named follows Holm (1979): with the largest named, the others are compared as if
they were alone. Units are the weights, because a stream's sum is measured in its own units.

Source: Shin, Ramdas, Rinaldo, "E-detectors" (2023); Holm, "A simple sequentially rejective multiple
test procedure" (1979).
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
        streams: numbers of the named streams, the clearest first.
        bad, units: of the named streams, from the detectors' start to the alarm; where streams
            overlap, of the first one.
        end: slot from which the alarm is over; None while it lasts.
    """

    slot: int
    streams: tuple[int, ...]
    bad: int
    units: int
    end: int | None


def list_alarm_episodes(
    streams: Sequence[UnitStream], *, false_alarm_every: float, overlap: int = 1
) -> Iterator[StreamAlarm]:
    """Yield the alarms in order; all detectors start anew when one is over.

    An alarm is over when each named stream is shown to be within its limit. While one is beyond
    it, the mean number of its units until that happens falsely is at least 1,000.

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
        ends = [int(np.searchsorted(s.slots, slot, side="right")) for s in later]
        paths = [s.compute_log_path()[:end] for s, end in zip(later, ends, strict=True)]
        units = [
            _sum(s.good_counts[:e]) + _sum(s.bad_counts[:e])
            for s, e in zip(later, ends, strict=True)
        ]
        log_sums = [float(path[-1]) if len(path) else -inf for path in paths]
        named_streams = name_streams(
            log_sums, units, false_alarm_every=false_alarm_every, overlap=overlap
        )
        end = find_recovery_slot([streams[number] for number in named_streams], after=slot)
        counted = (
            named_streams if overlap == 1 else named_streams[:1]
        )  # else units would count twice
        bad = sum(_sum(later[number].bad_counts[: ends[number]]) for number in counted)
        yield StreamAlarm(slot, named_streams, bad, sum(units[number] for number in counted), end)
        if end is None:
            return
        start = end


def _sum(counts: Ints) -> int:
    return int(counts.sum())


def _find_alarm_slot(streams: Sequence[UnitStream], needed: float) -> int | None:
    """Return the first slot in which any detector's sum is large enough."""
    alarm_slots = [
        int(stream.slots[reached.argmax()])
        for stream in streams
        if (reached := stream.compute_log_path() >= needed).any()
    ]
    return min(alarm_slots, default=None)


def name_streams(
    log_sums: Sequence[float],
    units: Sequence[int],
    *,
    false_alarm_every: float,
    overlap: int = 1,
) -> tuple[int, ...]:
    """Return the numbers of the streams to name, largest sum first, by Holm's procedure.

    Args:
        log_sums: logs of the detectors' sums.
        units: each stream's units since its detector's start.
        false_alarm_every: as of the alarm.
        overlap: in how many streams one unit is at most.

    >>> name_streams([log(1200), log(500), log(90)], [200, 600, 200], false_alarm_every=1000)
    (0,)
    >>> name_streams([log(1200), log(900), log(90)], [200, 600, 200], false_alarm_every=1000)
    (0, 1)
    """
    remaining = total = sum(units)
    named_streams: list[int] = []
    for number in sorted(range(len(units)), key=lambda i: (-log_sums[i], i)):
        if not remaining or log_sums[number] < log(false_alarm_every * overlap * remaining / total):
            break
        named_streams.append(number)
        remaining -= units[number]
    return tuple(named_streams)


def find_recovery_slot(streams: Sequence[UnitStream], *, after: int) -> int | None:
    """Return the first later slot at which each stream is shown to be within its limit.

    Without a unit of each stream nothing is shown, so the result is None.
    """
    later = [stream.select_after(after) for stream in streams]
    if not later or not all(len(stream.slots) for stream in later):
        return None
    return _find_proven_slot(later, waits_for_all=True)


def find_first_proof(streams: Sequence[UnitStream]) -> int | None:
    """Return the first slot at which each stream with units by then is within its limit.

    A stream that begins later plays no part: nobody could know of it then.
    """
    begun_streams = [stream for stream in streams if len(stream.slots)]
    return _find_proven_slot(begun_streams, waits_for_all=False) if begun_streams else None


def _find_proven_slot(streams: Sequence[UnitStream], *, waits_for_all: bool) -> int | None:
    slots = np.unique(np.concatenate([stream.slots for stream in streams]))
    is_proven = np.ones(len(slots), dtype=bool)
    for stream in streams:
        positions = np.searchsorted(stream.slots, slots, side="right") - 1
        is_shown = stream.find_proof()[np.maximum(positions, 0)]
        is_proven &= np.where(positions >= 0, is_shown, not waits_for_all)
    return int(slots[is_proven.argmax()]) if is_proven.any() else None
