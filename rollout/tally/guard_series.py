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
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position < 0:
            return GuardReading(alarm=False)
        is_alarm = bool(self.alarm[position])
        return GuardReading(
            alarm=is_alarm,
            value=str(int(self.bad[position])),
            records=int(self.records[position]),
            good_since=None if is_alarm else instant(self._good_since(position), tick),
        )

    def _good_since(self, place: int) -> int:
        alarm_positions = np.flatnonzero(self.alarm[: place + 1])
        return int(self.slots[0 if not len(alarm_positions) else alarm_positions[-1] + 1])

    def next_alarm(self, slot: int) -> int | None:
        """Return the first slot from `slot` on with an alarm, None if there is none."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position >= 0 and self.alarm[position]:
            return slot
        later_alarms = np.flatnonzero(self.alarm[position + 1 :])
        return int(self.slots[position + 1 + later_alarms[0]]) if len(later_alarms) else None


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
    row_counts = takes[rows.kind]
    has_counts = row_counts.any(axis=1)
    slots, starts = np.unique(rows.slot[has_counts], return_index=True)
    if not len(slots):
        return slots, row_counts[:0]
    counts: Ints = np.add.reduceat(row_counts[has_counts], starts, axis=0)
    return slots, counts


def _log_factors(guard: Guard, counts: Ints, policy: Policy) -> NDArray[np.float64]:
    condition = guard.condition
    if condition.measure == "cost":
        levels, threshold = scaled_levels(policy), scaled_line(condition, policy)
        return cost_log_factors(counts, losses=levels, reference=threshold)
    compared = counts.sum(axis=1)
    if condition.measure == "action_change":
        model_only, human_only = counts[:, 0], counts[:, 1]
        return action_change_log_factors(model_only, human_only, compared, at_most=condition.line)
    reference = condition.line if condition.at_least else 1 - condition.line
    return agreement_log_factors(counts[:, 0], compared, reference=reference)


def _against(guard: Guard, counts: Ints) -> Ints:
    """Return the records that speak against the line: any cost, the model alone, a difference."""
    against_columns = {"cost": slice(1, None), "action_change": slice(0, 1)}
    counts_against: Ints = counts[:, against_columns.get(guard.condition.measure, slice(1, 2))].sum(
        axis=1
    )
    return counts_against


def share_path(guard: Guard, slots: Ints, bad: Bools, policy: Policy) -> GuardPath:
    """Return the share of bad records within the guard's span before each slot.

    Args:
        guard: of missing, unaudited, failures, latency or harm.
        slots: slot of each record, ascending.
        bad: whether the record speaks against the line.
        policy: for the tick.
    """
    span_slots = _slots_of(guard.over or policy.tick, policy)
    change_slots = np.unique(np.concatenate([slots, slots + span_slots]))
    left_span = np.searchsorted(slots, change_slots - span_slots, side="right")
    entered_span = np.searchsorted(slots, change_slots, side="right")
    cumulative_bad = np.concatenate([[0], np.cumsum(bad)])
    bad_counts, record_counts = (
        cumulative_bad[entered_span] - cumulative_bad[left_span],
        entered_span - left_span,
    )
    return GuardPath(
        change_slots, _over_line(guard, bad_counts, record_counts), bad_counts, record_counts
    )


def _slots_of(span: timedelta, policy: Policy) -> int:
    return -(-micros(span) // micros(policy.tick))


def _over_line(guard: Guard, bad: Ints, records: Ints) -> Bools:
    threshold = guard.condition.line
    match guard.condition.measure:
        case "harm":
            return bad > threshold
        case "latency_p95":
            return bad > LATE_SHARE * records
        case "unaudited":
            return (records >= LEAST_AUDITS) & (bad > threshold * records)
        case _:
            return bad > threshold * records


def silence_path(guard: Guard, heard: Ints, until: int, policy: Policy) -> GuardPath:
    """Return where a site was silent for longer than the line.

    Args:
        guard: of heartbeat.
        heard: slots in which anything came from the site, ascending, each once.
        until: the last slot of the history: nobody is silent after it.
        policy: for the tick.
    """
    threshold = _slots_of(timedelta(seconds=guard.condition.line), policy)
    gaps = np.diff(heard, append=until + threshold + 1)
    silent_from = heard[gaps > threshold] + threshold + 1
    silent_from = silent_from[(silent_from <= until) & ~np.isin(silent_from, heard)]
    slots = np.unique(np.concatenate([heard, silent_from]))
    silent_slots = slots - heard[np.searchsorted(heard, slots, side="right") - 1]
    return GuardPath(slots, np.isin(slots, silent_from), silent_slots, np.ones_like(slots))
