"""Statuses of attribute values by slot, from the judged units of a version in a cell."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from rollout.engine.evidence.stage_history import FamiliarHistory, find_familiar_units
from rollout.engine.evidence.unit_arrays import IntArray, UnitArrays, UnitClasses
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
    stage_levels: IntArray,
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


def _find_places(rows: UnitArrays, unit_classes: UnitClasses) -> dict[AttributeValue, IntArray]:
    """Return by value the rows of which a case has it, in the order of rows."""
    parts: dict[AttributeValue, list[IntArray]] = {}
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

    slots: IntArray
    days: IntArray
    agreed_before: IntArray


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
    rows_by_value: dict[AttributeValue, list[IntArray]] = {}
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
