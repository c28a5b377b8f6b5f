"""Counted units as the store returns them, built from rows as `resolve_units` has them."""

from rollout.tally.stored_units import COLUMNS, LeverClass, StoredUnits, UnitSeries

DEFAULTS = {"attribute_values": None, "slices": None, "band": None, "is_erased": False}


def build_stored_units(rows):
    """Return units of one lever each."""
    series = {tuple(row[name] for name in UnitSeries._fields) for row in rows}
    classes = {tuple(row[name] for name in LeverClass._fields) for row in rows}
    series_ids = {values: number for number, values in enumerate(sorted(series), start=7)}
    class_ids = {values: number for number, values in enumerate(sorted(classes), start=3)}
    numbered = [
        DEFAULTS
        | row
        | {
            "series_id": series_ids[tuple(row[name] for name in UnitSeries._fields)],
            "class_ids": (class_ids[tuple(row[name] for name in LeverClass._fields)],),
        }
        for row in rows
    ]
    return StoredUnits(
        {number: UnitSeries._make(values) for values, number in series_ids.items()},
        {number: LeverClass._make(values) for values, number in class_ids.items()},
        **{name: [row[name] for row in numbered] for name in COLUMNS},
    )
