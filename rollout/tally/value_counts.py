"""How many units of a version were unfamiliar, and how it met each attribute value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from rollout.core.policy.familiarity import FEW, AttributeValue, FamiliarityRule, ValueReading
from rollout.tally.familiar_history import FamiliarHistory, find_familiar_units
from rollout.tally.unit_arrays import IntArray, UnitArrays, UnitClasses

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
