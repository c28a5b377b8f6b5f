"""By slot: where a gate of a cell is met, and has turned; and the statuses of attribute values.

The statuses come from the judged units of a version in a cell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, Final

import numpy as np

from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.kernel.measures import Statistic
from rollout.kernel.policy.cell_evidence import list_floors
from rollout.kernel.policy.familiarity import (
    FAMILIAR,
    FEW,
    MAX_VALUES,
    UNREADABLE,
    AttributeValue,
    FamiliarityRule,
    ValueReading,
    find_status,
    needs_incident,
    needs_record,
)
from rollout.kernel.policy.gates import is_gain_met
from rollout.kernel.statistics.gate_thresholds import compute_cost_log_e_path, get_gate_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.engine.evidence.guard_evidence import CountWindow
    from rollout.engine.evidence.unit_arrays import CellUnitArrays, UnitArrays, UnitClasses
    from rollout.kernel.arrays import Bools, Ints
    from rollout.kernel.measures import Condition
    from rollout.kernel.policy.policy import Minimum, Policy


def build_floor_views(view: EvidenceView) -> tuple[EvidenceView, ...]:
    """Return a view for each confidence floor, lowest first; () without several floors.

    Which units count depends on the draw alone, not on the acting floor: humans decide all cases
    below it, and counting those beside the drawn ones above would favour the unsure cases.
    """
    if view.floor_index is not None or not view.policy.evidence.higher_floors:
        return ()
    return tuple(
        replace(view, floor_index=i, rows=_select_band(view.rows, view.unit_classes, i))
        for i in range(len(list_floors(view.policy.evidence)))
    )


def _select_band(rows: CellUnitArrays, unit_classes: UnitClasses, band: int) -> CellUnitArrays:
    """Return the units of a band and those above."""
    bands = unit_classes.bands

    def select(part: UnitArrays) -> UnitArrays:
        return part.select(bands[part.unit_class] >= band)

    return replace(
        rows,
        gate=select(rows.gate),
        guard=select(rows.guard),
        assisted=select(rows.assisted),
        planted=select(rows.planted),
    )


SLOTS_AT_ONCE = 256  # of the first part that is evaluated; each further one is twice as long


class FlagSeries:
    """A flag by slot, each valid until the next slot and evaluated where it is asked for.

    Most questions are about the first slot from one on, and a cell's next change comes long before
    its last slot.

    Args:
        slots: where the flag can change, ascending.
        evaluate: returns the flags of ascending slots.
        first_part: slots to evaluate at first.
    """

    def __init__(
        self,
        slots: Ints,
        evaluate: Callable[[Ints], Bools],
        first_part: int = SLOTS_AT_ONCE,
    ) -> None:
        self._slots, self._evaluate, self._first_part = slots, evaluate, first_part
        self._start = 0  # place of the first evaluated slot
        self._flags = np.zeros(0, dtype=bool)

    @property
    def flags(self) -> Bools:
        """Return the flags of all slots."""
        if len(self._flags) < len(self._slots):
            self._start, self._flags = 0, self._evaluate(self._slots)
        return self._flags

    def find_next(self, slot: int, until: int | None = None) -> int | None:
        """Return the first slot from `slot` on with the flag, None if no slot has it.

        Where a slot `until` is given, it is returned instead of any later one, and of None.
        """
        first = max(int(np.searchsorted(self._slots, slot, side="right")) - 1, 0)
        last = len(self._slots)
        if until is not None:
            last = min(last, int(np.searchsorted(self._slots, until)))
        place = first
        while place < last:
            self._evaluate_from(place, max(place - first, self._first_part))
            flags = self._flags[place - self._start : last - self._start]
            if flags.any():
                return max(slot, int(self._slots[place + int(flags.argmax())]))
            place += len(flags)
        return until

    def _evaluate_from(self, place: int, number: int) -> None:
        """Evaluate a number of slots from a place on, unless it was evaluated."""
        end = self._start + len(self._flags)
        if self._start <= place < end:
            return
        flags = self._evaluate(self._slots[place : place + number])
        if place == end:
            self._flags = np.concatenate([self._flags, flags])
        else:
            self._start, self._flags = place, flags


class GateSeries:
    """Where a gate is met, and has turned, by slot.

    Args:
        slots: where this can change, ascending.
        evaluate: returns where the gate is met at a risk; it has turned where it isn't at risk 1.
        risk: of the gate.
        first_part: slots to evaluate at first.
    """

    def __init__(
        self,
        slots: Ints,
        evaluate: Callable[[Ints, float], Bools],
        risk: float,
        first_part: int = SLOTS_AT_ONCE,
    ) -> None:
        self.slots = slots
        self.met = FlagSeries(slots, lambda chosen: evaluate(chosen, risk), first_part)
        self.turned = FlagSeries(slots, lambda chosen: ~evaluate(chosen, 1.0), first_part)

    @property
    def is_met(self) -> Bools:
        """Return where the gate is met."""
        return self.met.flags

    @property
    def has_turned(self) -> Bools:
        """Return where the gate has turned."""
        return self.turned.flags


def choose_first_part(conditions: Iterable[Condition], slots: Ints) -> int:
    """Return how many slots of a gate to evaluate at first.

    All of them where a condition has one path or sum over all its rows.
    """
    has_path = any(c.population.has_own_series for c in conditions)
    return len(slots) if has_path else SLOTS_AT_ONCE


def are_minimums_met(
    policy: Policy,
    minimum: Minimum,
    window: CountWindow,
    minimum_window: CountWindow,
    slots: Ints,
) -> Bools:
    """Return where there are enough units, reviewers and days, and few decisions are missing."""
    are_met = minimum_window.find_minimum(minimum, slots)
    if are_met.any():  # in most cells of a first tick there are none
        are_met &= window.find_few_missing(policy.evidence.missing_at_most, slots)
    return are_met


def are_renewal_minimums_met(minimum: Minimum, units: CountWindow, slots: Ints) -> Bools:
    """Return where there are enough judged units and reviewers to renew a grant."""
    positions = units.count_rows_by(slots)
    are_enough: Bools = units.judged_counts[positions] >= max(minimum.units, 1)
    return are_enough & (units.reviewer_counts[positions] >= minimum.reviewers)


def are_all_met(
    policy: Policy,
    conditions: Iterable[Condition],
    window: CountWindow,
    are_minimums_met: Callable[[Ints], Bools],
    slots: Ints,
    risk: float,
    *,
    is_renewal: bool,
) -> Bools:
    """Return where the minimum holds and all conditions reach their threshold.

    A renewal has no minimum of slices. No method of a view: a series keeps
    this call, and a view that one of its series holds is freed late, by the collector of cycles.
    """
    result = are_minimums_met(slots)
    for condition in conditions:
        if not result.any():
            break
        if condition.population.attribute:
            rows = window.get_slice_rows(condition)
            is_passing = rows.find_passing(condition, risk, has_minimum=not is_renewal)
            result &= is_passing[window.count_rows_by(slots)]
            continue
        chosen = slots[result]
        if condition.population.has_gain:
            is_met = is_gain_met(condition, window.get_arms(condition), chosen, risk)
        else:
            counts = window.get_counts_at(condition, chosen)
            is_met = find_met_counts(condition, counts, risk, policy)
        result[result] = is_met
    return result


def find_met_counts(condition: Condition, counts: Ints, risk: float, policy: Policy) -> Bools:
    """Return at which rows of counts log E reaches ln(1/risk)."""
    if condition.measure.statistic is Statistic.MEAN:
        levels = policy.cost_shares
        threshold = policy.scale_cost(condition.threshold)
        return compute_cost_log_e_path(counts, levels=levels, at_most=threshold) >= -log(risk)
    return get_gate_threshold(condition.share, risk).are_met(counts[:, 0], counts[:, 1])


NO_READING: Final = ValueReading(FEW)


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """How a version met an attribute value in a cell.

    Attributes:
        reading: status, and the newest judged units with the value.
        met: closed units with the value.
        to_humans: those of them that occurred while the version acted and the value was not
            familiar, so that humans decided.
    """

    value: AttributeValue
    reading: ValueReading
    met: int
    to_humans: int

    @property
    def mistaken(self) -> int:
        """Return the newest judged units in which the version disagreed."""
        return self.reading.judged - self.reading.agreed


@dataclass(frozen=True, slots=True)
class UnfamiliarUnits:
    """Units of some days and cells, and how many were not familiar.

    Attributes:
        top_value: the unfamiliar value with most of them, None without any.
        top_units: how many have it.
    """

    units: int
    unfamiliar: int
    top_value: AttributeValue | None = None
    top_units: int = 0


def count_values(
    rows: UnitArrays,
    stage_levels: Ints,
    unit_classes: UnitClasses,
    history: FamiliarHistory,
    readings: Mapping[AttributeValue, ValueReading],
    rule: FamiliarityRule,
) -> tuple[ValueCounts, ...]:
    """Return the counts of each value of the rule, most met first.

    Args:
        rows: units of a version in a cell, one each.
        stage_levels: the version's own stage level when each occurred, 0 for shadow.
        unit_classes: their classes.
        history: which values were familiar when.
        readings: newest reading of each judged value.
        rule: of the policy.
    """
    counts = []
    for value, places in _find_places(rows, unit_classes).items():
        if value[0] not in rule.attribute_ids:
            continue
        is_familiar = history.find_familiar(value, rows.occurred[places])
        to_humans = int((~is_familiar & (stage_levels[places] > 0)).sum())
        reading = readings.get(value, NO_READING)
        counts.append(ValueCounts(value, reading, len(places), to_humans))
    return tuple(sorted(counts, key=lambda count: (-count.met, count.value)))


def count_unfamiliar_units(
    rows: UnitArrays, unit_classes: UnitClasses, history: FamiliarHistory
) -> UnfamiliarUnits:
    """Return how many units with stored values were not familiar when they occurred."""
    has_values = np.array([bool(values) for values in unit_classes.values_by_class], dtype=bool)
    rows = rows.select(has_values[rows.unit_class])
    unfamiliar = rows.select(~find_familiar_units(rows, unit_classes, history))
    totals = {
        value: int((~history.find_familiar(value, unfamiliar.occurred[places])).sum())
        for value, places in _find_places(unfamiliar, unit_classes).items()
    }
    top_value = min(totals, key=lambda value: (-totals[value], value), default=None)
    top_units = 0 if top_value is None else totals[top_value]
    return UnfamiliarUnits(len(rows), len(unfamiliar), top_value, top_units)


def _find_places(rows: UnitArrays, unit_classes: UnitClasses) -> dict[AttributeValue, Ints]:
    """Return by value the rows of which a case has it, in the order of rows."""
    parts: dict[AttributeValue, list[Ints]] = {}
    for unit_class in np.unique(rows.unit_class).tolist():
        places = np.flatnonzero(rows.unit_class == unit_class)
        for value in sorted(frozenset().union(*unit_classes.values_by_class[unit_class])):
            parts.setdefault(value, []).append(places)
    return {value: np.sort(np.concatenate(places)) for value, places in parts.items()}


@dataclass(frozen=True)
class _ValueUnits:
    """Judged units with a value, in the order in which they count.

    `agreed_before[n]` of the first n agree.
    """

    slots: Ints
    days: Ints
    agreed_before: Ints


class ValueSeries:
    """Readings of each value at any slot.

    Args:
        rows: the judged units, one each, sorted by slot.
        unit_classes: the classes of the history.
        rule: of the policy.
        line: share of judged units that must agree.
    """

    def __init__(
        self, rows: UnitArrays, unit_classes: UnitClasses, rule: FamiliarityRule, line: float
    ) -> None:
        self._rule, self._line = rule, line
        self._units = dict(_split_by_value(rows, unit_classes, rule))

    def read_at(self, slot: int) -> dict[AttributeValue, ValueReading]:
        """Return the readings of all values with units up to a slot."""
        readings = {}
        for value, units in self._units.items():
            count = int(np.searchsorted(units.slots, slot, side="right"))
            if count:
                today = int((units.days[:count] == units.days[count - 1]).sum())
                readings[value] = replace(self._read_units(value, units, count), today=today)
        return readings

    def _read_units(self, value: AttributeValue, units: _ValueUnits, count: int) -> ValueReading:
        start = max(0, count - 2 * self._rule.at_least)
        judged = count - start
        agreed = int(units.agreed_before[count] - units.agreed_before[start])
        status = find_status(judged, agreed, count, self._rule, self._line)
        if value[1] == UNREADABLE and status == FAMILIAR:
            status = FEW
        return ValueReading(status, judged, agreed)

    def find_next_change(
        self,
        slot: int,
        statuses: Mapping[AttributeValue, str],
        reported: frozenset[str],
        *,
        is_acting: bool,
        has_room: bool = True,
    ) -> int | None:
        """Return the first slot from `slot` on in which something is to be recorded, or None.

        Without room no incident opens, so that mistaken values alone need no slot.
        """
        ids = self._rule.attribute_ids
        readings = self.read_at(slot)
        if any(
            status == FAMILIAR and value[0] in ids and value not in readings
            for value, status in statuses.items()
        ):
            return slot
        next_slot: int | None = None
        for value, units in self._units.items():
            for change_slot, reading in self._list_readings(value, units, slot):
                if next_slot is not None and change_slot >= next_slot:
                    break
                if needs_record(statuses.get(value, ""), reading, is_acting=is_acting) or (
                    has_room and needs_incident(value, reading, reported, is_acting=is_acting)
                ):
                    next_slot = change_slot
                    break
        return next_slot

    def _list_readings(
        self, value: AttributeValue, units: _ValueUnits, slot: int
    ) -> Iterator[tuple[int, ValueReading]]:
        """Yield the reading at a slot, then that of each later slot with units of the value."""
        count = int(np.searchsorted(units.slots, slot, side="right"))
        if count:
            yield slot, self._read_units(value, units, count)
        while count < len(units.slots):
            next_slot = int(units.slots[count])
            count = int(np.searchsorted(units.slots, next_slot, side="right"))
            yield next_slot, self._read_units(value, units, count)


def _split_by_value(
    rows: UnitArrays, unit_classes: UnitClasses, rule: FamiliarityRule
) -> Iterator[tuple[AttributeValue, _ValueUnits]]:
    """Yield the units of each value, of an attribute at most the first 1,000 values.

    Of units that count in one slot those that agree come first: so the order of keys plays no part,
    and in doubt a disagreement is among the newest.
    """
    agreed = unit_classes.agrees[rows.unit_class]
    rows_by_value: dict[AttributeValue, list[Ints]] = {}
    for unit_class in np.unique(rows.unit_class).tolist():
        cases = unit_classes.values_by_class[unit_class]
        places = np.flatnonzero(rows.unit_class == unit_class)
        for value in cases[0] if cases else ():
            if value[0] in rule.attribute_ids:
                rows_by_value.setdefault(value, []).append(places)
    units_by_value = {}
    for value, parts in rows_by_value.items():
        places = np.concatenate(parts)
        places = places[np.lexsort((rows.occurred[places], ~agreed[places], rows.slot[places]))]
        agreed_before = np.concatenate([[0], np.cumsum(agreed[places])])
        units_by_value[value] = _ValueUnits(rows.slot[places], rows.day[places], agreed_before)
    first_met = sorted(
        units_by_value, key=lambda value: (int(units_by_value[value].slots[0]), value)
    )
    counts: dict[str, int] = {}
    for value in first_met:
        counts[value[0]] = counts.get(value[0], 0) + 1
        if counts[value[0]] <= MAX_VALUES:
            yield value, units_by_value[value]
