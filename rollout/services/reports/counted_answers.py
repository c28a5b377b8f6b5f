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


def drop_late_decisions(
    units: pl.DataFrame, counted_parts: Iterable[pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return units without decisions that came too late for gates, and which these are.

    Args:
        units: rows as `resolve_units` returns them.
        counted_parts: stored units, in parts, as `CountedUnits.load_frames` yields them.

    Returns:
        The units, and columns unit and version of those that gates counted without a decision
        although one in time is stored now.
    """
    is_gate = pl.col("track") == GATE
    decided = units.filter(is_gate, pl.col("decided") != MISSING).select(*KEY, "track")
    late = [
        decided.join(part.filter(is_gate, pl.col("decided") == MISSING), on=KEY, how="semi")
        for part in counted_parts
    ]
    if not any(part.height for part in late):
        return units, decided.select("unit", "version").clear()
    late_rows = pl.concat(late).with_columns(is_late=pl.lit(value=True))
    return (
        units.join(late_rows, on=[*KEY, "track"], how="left", maintain_order="left")
        .with_columns(
            decided=pl.when(pl.col("is_late")).then(pl.lit(MISSING)).otherwise(pl.col("decided"))
        )
        .drop("is_late"),
        late_rows.select("unit", "version").unique(maintain_order=True),
    )
