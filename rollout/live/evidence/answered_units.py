"""Cells in which a version's answers could be looked at, though none counts yet.

Asked only where an edit makes gates ask anew: with a long grace somebody could read the first
answers, and choose the question that they favour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rollout.data.records.case_pages import CasePages
from rollout.engine.evidence.slots import to_instant
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.late_modules import LateModule
from rollout.kernel.units import MISSING, SILENT

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    import polars as pl

    from rollout.live.evidence.fresh_units import BeginRead
    from rollout.live.rollout_state import RolloutState
else:
    pl = LateModule("polars")


def find_answered_units(
    begin_read: BeginRead, state: RolloutState, at: datetime, cells: Collection[Cell]
) -> dict[tuple[Cell, str], datetime]:
    """Return by cell and version the slot in which the last answered unit within grace occurred.

    Such a unit was predicted before it was decided, and is decided; older ones count already.
    """
    # seldom asked, and slow to import
    from rollout.live.evidence.unit_counting import GATE, resolve_case_units

    policy, answered = state.policy, {}
    since = at - policy.evidence.grace - 2 * policy.tick
    for site in sorted({cell.site for cell in cells}):
        with begin_read() as transaction:
            pages = CasePages(transaction, state.rollout)
            case_ids = pages.list_site_cases(site, since=since)
            units = resolve_case_units(transaction, state, case_ids) if case_ids else None
        if units is None:
            continue
        rows = (
            units.filter(
                pl.col("track") == GATE,
                pl.col("decided") != MISSING,
                ~pl.col("predicted").is_in(sorted(SILENT)),
                pl.col("excluded").is_null(),
            )
            .group_by("site", "window", "version")
            .agg(pl.col("occurred").max())
        )
        for place, window, version, occurred in rows.iter_rows():
            if (cell := Cell(place, window)) in cells:
                answered[cell, version] = to_instant(occurred, policy.tick)
    return answered
