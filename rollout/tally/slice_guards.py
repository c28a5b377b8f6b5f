"""Readings of guards by slice: agreement of each value, and drift of shares.

Agreement has a stream for each value, of its own units. Drift has two streams for each value, more
and fewer, of all units; their limits are the share in the reference plus or minus the threshold.
The reference is the decided units of the attempt from before the cell entered its stage.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rollout.core.policy.policy import Guard
from rollout.core.statistics.stream_alarms import (
    StreamAlarm,
    UnitStream,
    find_first_proof,
    list_alarm_episodes,
)
from rollout.kernel.measures import Condition
from rollout.kernel.readings import AlarmSubject
from rollout.tally.guard_series import GuardSeries
from rollout.tally.unit_arrays import BoolArray, IntArray, UnitArrays, UnitClasses

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
    is_counted: BoolArray = np.asarray(counts.any(axis=1), dtype=bool)
    rows, counts = rows.select(is_counted), counts[is_counted]
    codes, values = unit_classes.get_slice_codes(condition.population.attribute)
    row_codes = codes[rows.unit_class]
    present = np.unique(row_codes).tolist()
    streams = [
        _build_stream(rows.slot[mask], counts[mask, 1] > 0, 1 - condition.share)
        for mask in (row_codes == code for code in present)
    ]
    attribute = condition.population.attribute
    subjects = [AlarmSubject(attribute, values[code]) for code in present]
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
) -> tuple[str, IntArray, tuple[str, ...]]:
    """Return what is watched, the value's number of each class (-1: none), and the values."""
    attribute = condition.population.attribute
    if attribute:
        codes, values = unit_classes.get_slice_codes(attribute)
        return attribute, np.where(unit_classes.is_whole_unit, codes, -1), values
    codes, values = unit_classes.get_decision_codes(condition.lever)
    return "decision", codes, values


def _list_shifts(
    row_codes: IntArray,
    shares: np.ndarray[tuple[int], np.dtype[np.float64]],
    values: Sequence[str],
    tolerance: float,
    name: str,
) -> Iterator[tuple[AlarmSubject, BoolArray, float]]:
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


def _build_stream(slots: IntArray, is_bad: BoolArray, limit: float) -> UnitStream:
    unique_slots, starts = np.unique(slots, return_index=True)
    if not len(unique_slots):
        return UnitStream(unique_slots, unique_slots, unique_slots, limit)
    totals = np.diff(starts, append=len(slots))
    bad_counts = np.add.reduceat(is_bad.astype(np.int64), starts)
    return UnitStream(unique_slots, totals - bad_counts, bad_counts, limit)


def _build_series(
    guard: Guard,
    slots: IntArray,
    is_bad: BoolArray,
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


def _find_lasting(slots: IntArray, episode: StreamAlarm) -> BoolArray:
    is_after = slots >= episode.slot
    return is_after if episode.end is None else is_after & (slots < episode.end)
