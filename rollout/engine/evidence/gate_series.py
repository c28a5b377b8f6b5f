"""Where a gate of a cell is met, and has turned, by slot."""

from __future__ import annotations

from dataclasses import replace
from math import log
from typing import TYPE_CHECKING

import numpy as np

from rollout.kernel.measures import Statistic
from rollout.kernel.policy.confidence_floors import list_floors
from rollout.kernel.policy.gates import is_gain_met
from rollout.kernel.statistics.gate_thresholds import compute_cost_log_e_path, get_gate_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rollout.engine.evidence.count_windows import CountWindow
    from rollout.engine.evidence.evidence_view import EvidenceView
    from rollout.engine.evidence.unit_arrays import (
        BoolArray,
        CellUnitArrays,
        IntArray,
        UnitArrays,
        UnitClasses,
    )
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
        slots: IntArray,
        evaluate: Callable[[IntArray], BoolArray],
        first_part: int = SLOTS_AT_ONCE,
    ) -> None:
        self._slots, self._evaluate, self._first_part = slots, evaluate, first_part
        self._start = 0  # place of the first evaluated slot
        self._flags = np.zeros(0, dtype=bool)

    @property
    def flags(self) -> BoolArray:
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
            start = place - self._start
            flags = self._flags[start : last - self._start]
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
        slots: IntArray,
        evaluate: Callable[[IntArray, float], BoolArray],
        risk: float,
        first_part: int = SLOTS_AT_ONCE,
    ) -> None:
        self.slots = slots
        self.met = FlagSeries(slots, lambda chosen: evaluate(chosen, risk), first_part)
        self.turned = FlagSeries(slots, lambda chosen: ~evaluate(chosen, 1.0), first_part)

    @property
    def is_met(self) -> BoolArray:
        """Return where the gate is met."""
        return self.met.flags

    @property
    def has_turned(self) -> BoolArray:
        """Return where the gate has turned."""
        return self.turned.flags


def choose_first_part(conditions: Iterable[Condition], slots: IntArray) -> int:
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
    slots: IntArray,
) -> BoolArray:
    """Return where there are enough units, reviewers and days, and few decisions are missing."""
    are_met = minimum_window.find_minimum(minimum, slots)
    if are_met.any():  # in most cells of a first tick there are none
        are_met &= window.find_few_missing(policy.evidence.missing_at_most, slots)
    return are_met


def are_renewal_minimums_met(minimum: Minimum, units: CountWindow, slots: IntArray) -> BoolArray:
    """Return where there are enough judged units and reviewers to renew a grant."""
    positions = units.count_rows_by(slots)
    are_enough: BoolArray = units.judged_counts[positions] >= max(minimum.units, 1)
    return are_enough & (units.reviewer_counts[positions] >= minimum.reviewers)


def are_all_met(
    policy: Policy,
    conditions: Iterable[Condition],
    window: CountWindow,
    are_minimums_met: Callable[[IntArray], BoolArray],
    slots: IntArray,
    risk: float,
    *,
    is_renewal: bool,
) -> BoolArray:
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


def find_met_counts(
    condition: Condition, counts: IntArray, risk: float, policy: Policy
) -> BoolArray:
    """Return at which rows of counts log E reaches ln(1/risk)."""
    if condition.measure.statistic is Statistic.MEAN:
        levels = policy.cost_shares
        threshold = policy.scale_cost(condition.threshold)
        return compute_cost_log_e_path(counts, levels=levels, at_most=threshold) >= -log(risk)
    return get_gate_threshold(condition.share, risk).are_met(counts[:, 0], counts[:, 1])
