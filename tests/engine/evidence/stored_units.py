"""Counted units as the store returns them, built from rows as `resolve_units` has them."""

from itertools import groupby
from operator import itemgetter

from rollout.engine.evidence.stored_units import COLUMNS, LeverClass, StoredUnits, UnitSeries

DEFAULTS = {"attribute_values": None, "slices": None, "band": None, "is_erased": False}
GET_SERIES, GET_CLASS = itemgetter(*UnitSeries._fields), itemgetter(*LeverClass._fields)
GET_UNIT = itemgetter(*UnitSeries._fields, "unit")


def build_stored_units(rows):
    """Return units of rows, in which the levers of a unit follow each other."""
    series_ids = {values: number for number, values in enumerate(sorted({*map(GET_SERIES, rows)}))}
    class_ids = {values: number for number, values in enumerate({*map(GET_CLASS, rows)}, start=3)}
    units = []
    for _, lever_rows in groupby(rows, GET_UNIT):
        first, *others = lever_rows
        numbers = tuple(class_ids[GET_CLASS(row)] for row in (first, *others))
        units.append(
            DEFAULTS | first | {"series_id": series_ids[GET_SERIES(first)], "class_ids": numbers}
        )
    return StoredUnits(
        {number: UnitSeries._make(values) for values, number in series_ids.items()},
        {number: LeverClass._make(values) for values, number in class_ids.items()},
        **{name: [unit[name] for unit in units] for name in COLUMNS},
    )
