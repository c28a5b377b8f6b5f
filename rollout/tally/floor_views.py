"""Evidence at each confidence floor: that of the units at or above it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rollout.core.policy.confidence_floors import list_floors

if TYPE_CHECKING:
    from rollout.tally.evidence_view import EvidenceView
    from rollout.tally.unit_arrays import CellUnitArrays, IntArray, UnitArrays, UnitClasses


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


def list_bands(unit_classes: UnitClasses) -> IntArray:
    """Return the confidence band of each unit class; 0 without several floors."""
    return np.array([unit_class.band for unit_class in unit_classes.classes], dtype=np.int64)


def _select_band(rows: CellUnitArrays, unit_classes: UnitClasses, band: int) -> CellUnitArrays:
    """Return the units of a band and those above."""
    bands = list_bands(unit_classes)

    def select(part: UnitArrays) -> UnitArrays:
        return part.select(bands[part.unit_class] >= band)

    return replace(
        rows,
        gate=select(rows.gate),
        guard=select(rows.guard),
        assisted=select(rows.assisted),
        planted=select(rows.planted),
    )
