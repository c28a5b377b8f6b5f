"""Readings of a cell's guards by slot: detectors, shares over a time span, and guards by slice.

Without new counts nothing changes, so a series holds only the slots at which a reading can change.

By slice, agreement has a stream for each value, of its own units. Drift has two streams for each
value, more and fewer, of all units; their limits are the share in the reference plus or minus the
threshold. The reference is the decided units of the attempt from before the cell entered its stage.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from math import inf, log

import numpy as np

from rollout.engine.evidence.unit_arrays import (
    UnitArrays,
    UnitClasses,
    find_run_starts,
    unite_ascending,
)
from rollout.kernel.arrays import Bools, Floats, Ints
from rollout.kernel.calendar.instants import count_micros, to_instant
from rollout.kernel.facts import AlarmSubject
from rollout.kernel.measures import Condition, Statistic, Watch
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy.policy import Guard, Policy
from rollout.kernel.statistics.detector import (
    StreamAlarm,
    UnitStream,
    bound_agreement_path,
    compute_action_change_log_factors,
    compute_agreement_log_factors,
    compute_cost_log_factors,
    compute_log_path,
    find_alarms,
    find_first_proof,
    list_alarm_episodes,
)
from rollout.kernel.statistics.gain import ArmUnits, compute_gain_alarm_path

MICRO = 1e-6
_DISAGREEMENTS_SHARE = 4  # with more of all slots, a bound costs as much as the path
CALM_RATIO = 100  # a floor whose detector is so far below its alarm may act instead


@dataclass(frozen=True)
class GuardSeries:
    """A guard's readings, each valid from its slot to the next.

    Attributes:
        slots: where readings can change, ascending.
        bad_counts: records that speak against the threshold.
        record_counts: all records.
        has_recovered: whether later records show that an alarm is over; None where a measure that
            stayed within the threshold for the guard's span shows it.
        subjects: what an alarm is about, by slot; empty where a guard has one subject.
        is_calm: whether a detector is far below its alarm; None without several confidence floors.
        compute_path: returns a detector's values as natural logarithms; None without a detector.
            Few are read, so they are computed on demand.
    """

    slots: Ints
    is_alarm: Bools
    bad_counts: Ints
    record_counts: Ints
    has_recovered: Bools | None = None
    subjects: tuple[AlarmSubject | None, ...] = ()
    is_calm: Bools | None = None
    compute_path: Callable[[], Floats] | None = None

    @cached_property
    def log_path(self) -> Floats | None:
        """Return a detector's values as natural logarithms; None without a detector."""
        return None if self.compute_path is None else self.compute_path()

    def read_at(self, slot: int, tick: timedelta) -> GuardReading:
        """Return the reading at a slot; no alarm before the first one."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position < 0:
            return GuardReading(is_alarm=False)
        is_alarm = bool(self.is_alarm[position])
        return GuardReading(
            is_alarm=is_alarm,
            value=int(self.bad_counts[position]),
            records=int(self.record_counts[position]),
            good_since=None if is_alarm else to_instant(self._find_good_since(position), tick),
            has_recovered=(
                None if self.has_recovered is None else bool(self.has_recovered[position])
            ),
            subject=self.subjects[position] if self.subjects else None,
            is_calm=self.is_calm is not None and bool(self.is_calm[position]),
        )

    def _find_good_since(self, position: int) -> int:
        alarm_positions = np.flatnonzero(self.is_alarm[: position + 1])
        return int(self.slots[0 if not len(alarm_positions) else alarm_positions[-1] + 1])

    def find_next_alarm(self, slot: int) -> int | None:
        """Return the first slot from `slot` on with an alarm, or None."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position >= 0 and self.is_alarm[position]:
            return slot
        later_alarms = np.flatnonzero(self.is_alarm[position + 1 :])
        return int(self.slots[position + 1 + later_alarms[0]]) if len(later_alarms) else None


def compute_detector_series(
    guard: Guard, rows: UnitArrays, unit_classes: UnitClasses, policy: Policy
) -> GuardSeries:
    """Return the readings of a guard's detector, started before the first row.

    Args:
        guard: a guard whose measure has a detector.
        rows: guard rows since the detector's start; assisted rows for `override`.
        unit_classes: the classes of the history.
        policy: for cost levels and the largest cost.
    """
    slots, counts = _group_by_slot(rows, unit_classes.get_class_counts(guard.condition))
    if not len(slots):
        return GuardSeries(slots, np.empty(0, dtype=bool), slots, slots)
    compared = counts.sum(axis=1)

    def compute_factors() -> Floats:
        return _compute_log_factors(guard, counts, policy)

    threshold, is_calm = log(guard.false_alarm_every), None
    if policy.evidence.higher_floors:
        is_calm = compute_log_path(compute_factors(), compared) < log(
            guard.false_alarm_every / CALM_RATIO
        )
    if _compute_bound(guard, counts) < threshold:
        is_alarm = np.zeros(len(slots), dtype=bool)
    else:
        is_alarm = find_alarms(compute_factors(), compared, threshold)
    return GuardSeries(
        slots=slots,
        is_alarm=is_alarm,
        bad_counts=np.cumsum(_count_against(guard, counts)),
        record_counts=np.cumsum(compared),
        is_calm=is_calm,
        compute_path=lambda: compute_log_path(compute_factors(), compared),
    )


def _compute_bound(guard: Guard, counts: Ints) -> float:
    """Return what no value of the path exceeds; infinity where that saves nothing."""
    if guard.condition.measure.statistic is not Statistic.SHARE:
        return inf
    disagreed = np.flatnonzero(counts[:, 1])
    if len(disagreed) > len(counts) // _DISAGREEMENTS_SHARE:
        return inf
    agreed, compared = counts[disagreed, 0], counts[disagreed].sum(axis=1)
    agreed_until = np.cumsum(counts[:, 0])[disagreed]
    agreed_before = np.diff(agreed_until, prepend=0) - agreed
    return bound_agreement_path(agreed_before, agreed, compared, reference=_find_reference(guard))


def compute_gain_series(guard: Guard, units: ArmUnits) -> GuardSeries:
    """Return the readings of a guard on gain, started before the first unit.

    `bad_counts` is the gain so far in millionths of the outcome's range.
    """
    condition = guard.condition
    assert condition.population.has_gain  # noqa: S101 - the caller asks for gains alone
    counted_units = units.select(units.is_known)
    ends = counted_units.last_positions
    path = compute_gain_alarm_path(units, at_least=condition.scaled_threshold)
    differences = counted_units.compute_weighted_differences(counted_units.scores)
    gains = np.cumsum(differences)[ends] / (ends + 1)
    return GuardSeries(
        slots=counted_units.slots[ends],
        is_alarm=path >= log(guard.false_alarm_every),
        bad_counts=np.round(gains / MICRO).astype(np.int64),
        record_counts=ends + 1,
    )


def _group_by_slot(rows: UnitArrays, class_counts: Ints) -> tuple[Ints, Ints]:
    """Return the slots with counts of the measure, and the counts."""
    is_counted: Bools = np.any(class_counts, axis=1)
    counted = np.flatnonzero(is_counted[rows.unit_class])
    slots = rows.slot[counted]
    row_counts = class_counts.take(rows.unit_class[counted], axis=0)
    if not len(slots):
        return slots, row_counts
    starts = find_run_starts(slots)
    counts: Ints = np.add.reduceat(row_counts, starts, axis=0)
    return slots[starts], counts


def _compute_log_factors(guard: Guard, counts: Ints, policy: Policy) -> Floats:
    condition = guard.condition
    if condition.measure.statistic is Statistic.MEAN:
        levels, threshold = policy.cost_shares, policy.scale_cost(condition.threshold)
        return compute_cost_log_factors(counts, losses=levels, reference=threshold)
    compared = counts.sum(axis=1)
    if condition.measure.statistic is Statistic.EXCESS:
        model_only, human_only = counts[:, 0], counts[:, 1]
        return compute_action_change_log_factors(
            model_only, human_only, compared, at_most=condition.threshold
        )
    reference = _find_reference(guard)
    return compute_agreement_log_factors(counts[:, 0], compared, reference=reference)


def _find_reference(guard: Guard) -> float:
    """Return the lowest acceptable share of agreement."""
    condition = guard.condition
    return condition.share if condition.at_least else 1 - condition.share


def _count_against(guard: Guard, counts: Ints) -> Ints:
    """Return the records against the threshold: costs, the model alone, or differences."""
    columns = guard.condition.measure.list_columns_against(counts.shape[1])
    counts_against: Ints = counts[:, columns].sum(axis=1)
    return counts_against


def compute_share_series(guard: Guard, slots: Ints, is_bad: Bools, policy: Policy) -> GuardSeries:
    """Return the share of bad records in the span before each slot.

    Args:
        guard: of missing, unaudited, failures, latency or harm.
        slots: slot of each record, ascending.
        is_bad: whether the record speaks against the threshold.
        policy: for the tick.
    """
    span_slots = count_slots(guard.over or policy.tick, policy)
    own_slots = slots[find_run_starts(slots)]
    change_slots = unite_ascending(own_slots, own_slots + span_slots)
    left_span = np.searchsorted(slots, change_slots - span_slots, side="right")
    entered_span = np.searchsorted(slots, change_slots, side="right")
    cumulative_bad = np.concatenate([[0], np.cumsum(is_bad)])
    bad_counts = cumulative_bad[entered_span] - cumulative_bad[left_span]
    record_counts = entered_span - left_span
    return GuardSeries(
        change_slots,
        _is_over_threshold(guard, bad_counts, record_counts),
        bad_counts,
        record_counts,
    )


def count_slots(duration: timedelta, policy: Policy) -> int:
    """Return the slots of a duration, rounded up."""
    return -(-count_micros(duration) // count_micros(policy.tick))


def _is_over_threshold(guard: Guard, bad_counts: Ints, record_counts: Ints) -> Bools:
    measure, threshold = guard.condition.measure, guard.condition.threshold
    if measure.watch is Watch.HARMS:
        return bad_counts > threshold
    is_over = bad_counts > measure.find_share_limit(threshold) * record_counts
    return (record_counts >= measure.min_records) & is_over


MIN_REFERENCE_UNITS = 100  # with fewer, nothing drifts


def compute_slice_series(
    guard: Guard, condition: Condition, rows: UnitArrays, unit_classes: UnitClasses
) -> GuardSeries:
    """Return the readings of a guard on the agreement of each value.

    Args:
        guard: of agreement, by slice.
        condition: its condition.
        rows: guard rows since the detectors' start.
        unit_classes: the classes of the history.
    """
    counts = unit_classes.take_counts(condition, rows)
    is_counted: Bools = np.asarray(counts.any(axis=1), dtype=bool)
    rows, counts = rows.select(is_counted), counts[is_counted]
    codes, values = unit_classes.get_slice_codes(condition.population.attribute)
    row_codes = codes[rows.unit_class]
    present = np.unique(row_codes).tolist()
    streams = [
        _build_stream(rows.slot[mask], counts[mask, 1] > 0, 1 - condition.share)
        for mask in (row_codes == code for code in present)
    ]
    subjects = [AlarmSubject(condition.population.attribute, values[code]) for code in present]
    return _build_series(guard, rows.slot, counts[:, 1] > 0, streams, subjects, overlap=1)


def compute_drift_series(
    guard: Guard, rows: UnitArrays, reference: UnitArrays, unit_classes: UnitClasses
) -> GuardSeries:
    """Return the readings of a guard on the shares of values.

    Args:
        guard: of drift, by slice, or of the human decisions on a lever.
        rows: decided units since the cell entered its stage.
        reference: those of the attempt before that.
        unit_classes: the classes of the history.
    """
    name, codes, values = _list_codes(guard.condition, unit_classes)
    rows, reference = (part.select(codes[part.unit_class] >= 0) for part in (rows, reference))
    row_codes = codes[rows.unit_class]
    streams: list[UnitStream] = []
    subjects: list[AlarmSubject] = []
    if len(reference) >= MIN_REFERENCE_UNITS:
        shares = np.bincount(codes[reference.unit_class], minlength=len(values)) / len(reference)
        for subject, is_bad, limit in _list_shifts(
            row_codes, shares, values, guard.condition.threshold, name
        ):
            streams.append(_build_stream(rows.slot, is_bad, limit))
            subjects.append(subject)
    is_bad = np.zeros(len(rows), dtype=bool)
    return _build_series(guard, rows.slot, is_bad, streams, subjects, overlap=len(streams))


def _list_codes(
    condition: Condition, unit_classes: UnitClasses
) -> tuple[str, Ints, tuple[str, ...]]:
    """Return what is watched, the value's number of each class (-1: none), and the values."""
    attribute = condition.population.attribute
    if attribute:
        codes, values = unit_classes.get_slice_codes(attribute)
        return attribute, np.where(unit_classes.is_whole_unit, codes, -1), values
    codes, values = unit_classes.get_decision_codes(condition.lever)
    return "decision", codes, values


def _list_shifts(
    row_codes: Ints,
    shares: np.ndarray[tuple[int], np.dtype[np.float64]],
    values: Sequence[str],
    tolerance: float,
    name: str,
) -> Iterator[tuple[AlarmSubject, Bools, float]]:
    """Yield each shift with its subject, the units that speak for it, and their largest share."""
    for code in np.flatnonzero(shares).tolist():
        share, has_value = float(shares[code]), row_codes == code
        if share + tolerance < 1:
            more = AlarmSubject(name, values[code], "more", share)
            yield more, has_value, share + tolerance
        if share - tolerance > 0:
            fewer = AlarmSubject(name, values[code], "fewer", share)
            yield fewer, ~has_value, 1 - share + tolerance
    yield AlarmSubject(name), shares[row_codes] == 0, tolerance


def _build_stream(slots: Ints, is_bad: Bools, limit: float) -> UnitStream:
    unique_slots, starts = np.unique(slots, return_index=True)
    if not len(unique_slots):
        return UnitStream(unique_slots, unique_slots, unique_slots, limit)
    totals = np.diff(starts, append=len(slots))
    bad_counts = np.add.reduceat(is_bad.astype(np.int64), starts)
    return UnitStream(unique_slots, totals - bad_counts, bad_counts, limit)


def _build_series(
    guard: Guard,
    slots: Ints,
    is_bad: Bools,
    streams: Sequence[UnitStream],
    subjects: Sequence[AlarmSubject],
    *,
    overlap: int,
) -> GuardSeries:
    """Return the readings at each slot with units: those of the episode in force, else totals."""
    series_slots, starts = np.unique(slots, return_index=True)
    record_counts = np.append(starts[1:], len(slots)) if len(starts) else starts
    bad_counts = np.concatenate([[0], np.cumsum(is_bad)])[record_counts]
    is_alarm = np.zeros(len(series_slots), dtype=bool)
    has_recovered = np.zeros(len(series_slots), dtype=bool)
    names: list[AlarmSubject | None] = [None] * len(series_slots)
    proven = find_first_proof(streams)
    if proven is not None:
        has_recovered |= series_slots >= proven
    for episode in list_alarm_episodes(
        streams, false_alarm_every=guard.false_alarm_every, overlap=overlap
    ):
        lasting = _find_lasting(series_slots, episode)
        is_alarm |= lasting
        has_recovered = np.where(series_slots >= episode.slot, ~lasting, has_recovered)
        bad_counts = np.where(lasting, episode.bad, bad_counts)
        record_counts = np.where(lasting, episode.units, record_counts)
        subject = subjects[episode.stream]
        names = [subject if lasts else name for lasts, name in zip(lasting, names, strict=True)]
    return GuardSeries(
        series_slots, is_alarm, bad_counts, record_counts, has_recovered, tuple(names)
    )


def _find_lasting(slots: Ints, episode: StreamAlarm) -> Bools:
    is_after = slots >= episode.slot
    return is_after if episode.end is None else is_after & (slots < episode.end)
