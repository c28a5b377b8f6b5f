"""Where a gate of a cell is met, and has turned, by slot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import log
from typing import TYPE_CHECKING

import numpy as np

from rollout.core.policy.block_readings import (
    find_mixtures_met,
    scale_cost_levels,
    scale_cost_threshold,
)
from rollout.core.policy.confidence_floors import list_floors
from rollout.core.statistics.gate_thresholds import (
    compute_cost_log_e_path,
    compute_parity_log_e_path,
    get_gate_threshold,
)
from rollout.tally.slots import FIRST_SLOT
from rollout.tally.unit_arrays import IntArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from rollout.core.policy.measures import Condition
    from rollout.core.policy.policy import Policy
    from rollout.tally.count_windows import CountWindow
    from rollout.tally.evidence_view import EvidenceView
    from rollout.tally.unit_arrays import (
        BoolArray,
        CellUnitArrays,
        IntArray,
        UnitArrays,
        UnitClasses,
    )


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


_MAX_SUMS = 200_000  # counts from starts that are held at once


@dataclass(frozen=True)
class GateSeries:
    """Where a gate is met, and has turned, by slot.

    Each value holds until the next slot. Most gates have no open proposal, so `has_turned` is
    computed on demand. `first_slot` is the first one that was evaluated.
    """

    slots: IntArray
    is_met: BoolArray
    compute_turned: Callable[[], BoolArray]
    first_slot: int = FIRST_SLOT

    @cached_property
    def has_turned(self) -> BoolArray:
        """Return where the gate has turned."""
        return self.compute_turned()

    def find_next(self, holds: BoolArray, slot: int) -> int | None:
        """Return the first slot from `slot` on at which `holds` is true."""
        position = int(np.searchsorted(self.slots, slot, side="right")) - 1
        if position >= 0 and holds[position]:
            return slot
        later_positions = np.flatnonzero(holds[position + 1 :])
        return int(self.slots[position + 1 + later_positions[0]]) if len(later_positions) else None


def find_met_blocks(
    condition: Condition, window: CountWindow, slots: IntArray, risk: float, policy: Policy
) -> BoolArray:
    """Return at which slots the mixture over blocks reaches ln(1/risk)."""
    is_met = np.zeros(len(slots), dtype=bool)
    most_blocks = max(window.count_blocks(), 1)
    step = max(_MAX_SUMS // most_blocks, 1)
    for first in range(0, len(slots), step):
        chosen = slots[first : first + step]
        sums, starts = window.get_sums_from_starts(condition, chosen)
        is_met[first : first + step] = find_mixtures_met(condition, sums, starts, risk, policy)
    return is_met


def find_met_counts(
    condition: Condition, counts: IntArray, risk: float, policy: Policy
) -> BoolArray:
    """Return at which rows of counts log E reaches ln(1/risk)."""
    if condition.measure == "cost":
        levels = scale_cost_levels(policy)
        threshold = scale_cost_threshold(condition, policy)
        return compute_cost_log_e_path(counts, levels=levels, at_most=threshold) >= -log(risk)
    if condition.measure == "parity":
        return compute_parity_log_e_path(counts, margin=-condition.line) >= -log(risk)
    return get_gate_threshold(condition.line, risk).are_met(counts[:, 0], counts[:, 1])
