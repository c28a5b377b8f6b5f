"""Decisions that arrived after gates had counted their unit, in units resolved for a report.

A decision's own time may lie within the grace although it arrived after its unit had closed and
was counted without it. A report resolves units from all records stored since, so it takes such a
decision away again.
"""

from collections.abc import Iterable

import polars as pl

from rollout.core.policy.measures import MISSING
from rollout.tally.units import TRACKS

GATE = TRACKS[0]
KEY = ("unit", "version", "site", "window", "lever")
DEFINITION = ("site", "window", "definition")


def select_missing_units(counted_units: pl.DataFrame) -> pl.DataFrame:
    """Return the stored units that gates counted without a decision."""
    is_missing = (pl.col("track") == GATE) & (pl.col("decided") == MISSING)
    return counted_units.filter(is_missing).select(*KEY, "definition")


def drop_late_decisions(
    units: pl.DataFrame,
    missing_units: pl.DataFrame,
    definitions: Iterable[tuple[str, str, str]],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return units without decisions that came too late for gates, and which these are.

    Args:
        units: rows as `resolve_units` returns them.
        missing_units: rows as `select_missing_units` returns them.
        definitions: site, window and record definition of what is comparable with `units`: a unit
            that lacked a decision under another definition need not lack one under this.

    Returns:
        The units, and columns unit and version of those that gates counted without a decision
        although one in time is stored now.
    """
    is_decided = (pl.col("track") == GATE) & (pl.col("decided") != MISSING)
    comparable = pl.DataFrame(list(definitions), schema=DEFINITION, orient="row")
    missing_keys = missing_units.join(
        comparable.cast(dict.fromkeys(DEFINITION, pl.String)), on=DEFINITION, how="semi"
    )
    if missing_keys.is_empty():
        return units, units.select("unit", "version").clear()
    late_rows = units.filter(is_decided).join(missing_keys, on=KEY, how="semi")
    late_keys = late_rows.select(*KEY, "track").with_columns(is_late=pl.lit(value=True))
    return (
        units.join(late_keys, on=[*KEY, "track"], how="left", maintain_order="left")
        .with_columns(
            decided=pl.when(pl.col("is_late")).then(pl.lit(MISSING)).otherwise(pl.col("decided"))
        )
        .drop("is_late"),
        late_rows.select("unit", "version").unique(maintain_order=True),
    )
