"""What each guard of a cell reads at any slot: detectors over buckets, shares over a span of time.

A bucket is a slot of the grid. Where nothing is counted nothing changes, so a path holds only the
slots at which a reading can change.
"""

from dataclasses import dataclass
from datetime import timedelta
from math import log

import numpy as np
from numpy.typing import NDArray

from rollout.core.policy.cell_evidence import GuardReading
from rollout.core.policy.gates import scaled_levels, scaled_line
from rollout.core.policy.policy import Guard, Policy
from rollout.core.statistics.detector import (
    action_change_log_factors,
    agreement_log_factors,
    cost_log_factors,
    log_path,
)
from rollout.tally.slots import instant, micros
from rollout.tally.unit_arrays import Bools, Ints, Kinds, Rows

LEAST_AUDITS = 20  # as a plain share from the first audit on it trips healthy cells
LATE_SHARE = 0.05  # the 95th percentile lies above a line when more than this share does


@dataclass(frozen=True)
class GuardPath:
    """A guard's readings, each from its slot until the next one.

    Attributes:
        slots: where readings can change, ascending.
        alarm: whether the guard is in alarm.
        bad: records that speak against the line.
        records: records in all.
    """

    slots: Ints
    alarm: Bools
    bad: Ints
    records: Ints

    def at(self, slot: int, tick: timedelta) -> GuardReading:
        """Return the reading at a slot; before the first one nothing is known, so no alarm."""
        place = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if place < 0:
            return GuardReading(alarm=False)
        alarm = bool(self.alarm[place])
        return GuardReading(
            alarm=alarm,
            value=str(int(self.bad[place])),
            records=int(self.records[place]),
            good_since=None if alarm else instant(self._good_since(place), tick),
        )

    def _good_since(self, place: int) -> int:
        bad = np.flatnonzero(self.alarm[: place + 1])
        return int(self.slots[0 if not len(bad) else bad[-1] + 1])

    def next_alarm(self, slot: int) -> int | None:
        """Return the first slot from `slot` on with an alarm, None if there is none."""
        place = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if place >= 0 and self.alarm[place]:
            return slot
        later = np.flatnonzero(self.alarm[place + 1 :])
        return int(self.slots[place + 1 + later[0]]) if len(later) else None


def detector_path(guard: Guard, rows: Rows, kinds: Kinds, policy: Policy) -> GuardPath:
    """Return what the guard's detector reads after each bucket, started anew before the first.

    Args:
        guard: of a measure that has a detector.
        rows: guard rows, or assisted ones for `override`, that count since the detector started.
        kinds: the history's classes.
        policy: for cost levels and the largest cost.
    """
    slots, counts = _buckets(rows, kinds.takes(guard.condition))
    if not len(slots):
        return GuardPath(slots, np.empty(0, dtype=bool), slots, slots)
    compared = counts.sum(axis=1)
    path = log_path(_log_factors(guard, counts, policy), compared)
    return GuardPath(
        slots=slots,
        alarm=path >= log(guard.false_alarm_every),
        bad=np.cumsum(_against(guard, counts)),
        records=np.cumsum(compared),
    )


def _buckets(rows: Rows, takes: Ints) -> tuple[Ints, Ints]:
    """Return the slots in which the measure gains records, and its counts in each."""
    gains = takes[rows.kind]
    counted = gains.any(axis=1)
    slots, starts = np.unique(rows.slot[counted], return_index=True)
    if not len(slots):
        return slots, gains[:0]
    counts: Ints = np.add.reduceat(gains[counted], starts, axis=0)
    return slots, counts


def _log_factors(guard: Guard, counts: Ints, policy: Policy) -> NDArray[np.float64]:
    condition = guard.condition
    if condition.measure == "cost":
        levels, line = scaled_levels(policy), scaled_line(condition, policy)
        return cost_log_factors(counts, losses=levels, reference=line)
    compared = counts.sum(axis=1)
    if condition.measure == "action_change":
        model, person = counts[:, 0], counts[:, 1]
        return action_change_log_factors(model, person, compared, at_most=condition.line)
    reference = condition.line if condition.at_least else 1 - condition.line
    return agreement_log_factors(counts[:, 0], compared, reference=reference)


def _against(guard: Guard, counts: Ints) -> Ints:
    """Return the records that speak against the line: any cost, the model alone, a difference."""
    places = {"cost": slice(1, None), "action_change": slice(0, 1)}
    against: Ints = counts[:, places.get(guard.condition.measure, slice(1, 2))].sum(axis=1)
    return against


def share_path(guard: Guard, slots: Ints, bad: Bools, policy: Policy) -> GuardPath:
    """Return the share of bad records within the guard's span before each slot.

    Args:
        guard: of missing, unaudited, failures, latency or harm.
        slots: slot of each record, ascending.
        bad: whether the record speaks against the line.
        policy: for the tick.
    """
    over = _slots_of(guard.over or policy.tick, policy)
    changes = np.unique(np.concatenate([slots, slots + over]))
    gone = np.searchsorted(slots, changes - over, side="right")
    come = np.searchsorted(slots, changes, side="right")
    cumulated = np.concatenate([[0], np.cumsum(bad)])
    against, records = cumulated[come] - cumulated[gone], come - gone
    return GuardPath(changes, _over_line(guard, against, records), against, records)


def _slots_of(span: timedelta, policy: Policy) -> int:
    return -(-micros(span) // micros(policy.tick))


def _over_line(guard: Guard, bad: Ints, records: Ints) -> Bools:
    line = guard.condition.line
    match guard.condition.measure:
        case "harm":
            return bad > line
        case "latency_p95":
            return bad > LATE_SHARE * records
        case "unaudited":
            return (records >= LEAST_AUDITS) & (bad > line * records)
        case _:
            return bad > line * records


def silence_path(guard: Guard, heard: Ints, until: int, policy: Policy) -> GuardPath:
    """Return where a site was silent for longer than the line.

    Args:
        guard: of heartbeat.
        heard: slots in which anything came from the site, ascending, each once.
        until: the last slot of the history: nobody is silent after it.
        policy: for the tick.
    """
    line = _slots_of(timedelta(seconds=guard.condition.line), policy)
    gaps = np.diff(heard, append=until + line + 1)
    silent_from = heard[gaps > line] + line + 1
    silent_from = silent_from[(silent_from <= until) & ~np.isin(silent_from, heard)]
    slots = np.unique(np.concatenate([heard, silent_from]))
    silent = slots - heard[np.searchsorted(heard, slots, side="right") - 1]
    return GuardPath(slots, np.isin(slots, silent_from), silent, np.ones_like(slots))
