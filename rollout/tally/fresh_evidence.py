"""Units inside their grace whose answer is known, beside those that count."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rollout.core.policy.cell_evidence import EvidenceCounts, SliceCounts
from rollout.core.policy.fresh_evidence import (
    NEWEST_SIZES,
    NO_UNPLACED,
    FreshEvidence,
    UnplacedDecisions,
)
from rollout.kernel.measures import Condition, MeasureKey, Statistic
from rollout.tally.count_windows import CountWindow
from rollout.tally.guard_series import compute_detector_series, count_slots
from rollout.tally.slots import LAST_SLOT
from rollout.tally.unit_arrays import (
    CellUnitArrays,
    UnitArrays,
    UnitClasses,
    build_empty_arrays,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rollout.kernel.measures import Condition
    from rollout.tally.evidence_view import EvidenceView
    from rollout.tally.unit_arrays import IntArray


@dataclass(frozen=True)
class FreshUnits:
    """Units inside their grace whose answer is known; `slot` is from when on.

    Their classes may be others than those of the units that count.
    """

    rows: UnitArrays
    unit_classes: UnitClasses
    unplaced: UnplacedDecisions = NO_UNPLACED


def read_fresh_evidence(
    view: EvidenceView,
    slot: int,
    fresh: FreshUnits | None = None,
    unplaced: UnplacedDecisions = NO_UNPLACED,
) -> FreshEvidence:
    """Return the evidence at a slot with the units whose answer is known by then.

    Args:
        view: of the units that count; in a replay also of those to come.
        slot: the present.
        fresh: what the view lacks of them.
        unplaced: decisions that belong to no cell, where `fresh` doesn't say it.
    """
    if fresh is None:
        fresh = FreshUnits(_select_fresh(view, slot), view.unit_classes, unplaced)
    fresh_view = replace(
        view,
        rows=CellUnitArrays(gate=fresh.rows),
        unit_classes=fresh.unit_classes,
        begun=view.find_begin(slot),
    )
    views = list(zip(view.floor_views, fresh_view.floor_views, strict=True))
    floors = tuple(
        replace(_read_floor(*pair, slot), unplaced=fresh.unplaced)
        for pair in views or [(view, fresh_view)]
    )
    return replace(floors[0], floors=floors if views else ())


def _select_fresh(view: EvidenceView, slot: int) -> UnitArrays:
    """Return the rows that close after a slot and are known by it."""
    rows, known_slots, policy = view.rows.gate, view.rows.gate_known, view.policy
    if known_slots is None:
        return build_empty_arrays()
    last = slot + count_slots(policy.evidence.grace, policy) + 1
    start, end = np.searchsorted(rows.slot, [slot, last], side="right").tolist()
    return order_by_receipt(rows.select(slice(start, end)), known_slots[start:end], slot)


def order_by_receipt(rows: UnitArrays, known_slots: IntArray, until: int) -> UnitArrays:
    """Return the rows that are known by a slot, each counted in the slot that knew it first."""
    order = np.flatnonzero(known_slots <= until)
    order = order[np.lexsort((rows.occurred[order], known_slots[order]))]
    return replace(rows.select(order), slot=known_slots[order])


def _read_floor(view: EvidenceView, fresh_view: EvidenceView, slot: int) -> FreshEvidence:
    rows, classes = fresh_view.gate_rows, fresh_view.unit_classes
    fresh = CountWindow(rows, classes, view.conditions).count_at(LAST_SLOT)
    return FreshEvidence(
        fresh=fresh,
        attempt=_add_counts(view.attempt_window.count_at(slot), fresh),
        newest=dict(_count_newest(view, slot, rows, classes)),
        alarms=tuple(_find_alarms(view, slot)),
    )


def _add_counts(counts: EvidenceCounts, fresh: EvidenceCounts) -> EvidenceCounts:
    """Return counts with the fresh ones; days, reviewers and gains stay those that count."""
    return replace(
        counts,
        closed=counts.closed + fresh.closed,
        missing=counts.missing + fresh.missing,
        recent_closed=counts.recent_closed + fresh.closed,
        recent_missing=counts.recent_missing + fresh.missing,
        counts={
            key: tuple(a + b for a, b in zip(own, fresh.counts.get(key, own), strict=True))
            if key in fresh.counts
            else own
            for key, own in counts.counts.items()
        },
        slices={
            key: _add_slices(values, fresh.slices.get(key, {}))
            for key, values in counts.slices.items()
        },
    )


def _add_slices(
    values: Mapping[str, SliceCounts], fresh: Mapping[str, SliceCounts]
) -> dict[str, SliceCounts]:
    none = SliceCounts(0, 0)
    return {
        value: SliceCounts(
            *(a + b for a, b in zip(values.get(value, none), fresh.get(value, none), strict=True))
        )
        for value in dict.fromkeys((*values, *fresh))
    }


def _count_newest(
    view: EvidenceView, slot: int, fresh: UnitArrays, fresh_classes: UnitClasses
) -> Iterator[tuple[MeasureKey, tuple[tuple[int, int], ...]]]:
    """Yield the agreements among the newest answers of each share condition."""
    rows = view.gate_rows
    counted = rows.select(slice(0, int(np.searchsorted(rows.slot, slot, side="right"))))
    for condition in view.conditions:
        if _is_share(condition):
            agreed = np.concatenate(
                [
                    _list_agreements(condition, counted, view.unit_classes),
                    _list_agreements(condition, fresh, fresh_classes),
                ]
            )
            sizes = [size for size in NEWEST_SIZES if size <= len(agreed)]
            yield condition.key, tuple((int(agreed[-size:].sum()), size) for size in sizes)


def _is_share(condition: Condition) -> bool:
    """Return whether a condition counts agreements of the cases that occur."""
    return condition.population.sums_units and condition.measure.statistic is Statistic.SHARE


def _list_agreements(condition: Condition, rows: UnitArrays, unit_classes: UnitClasses) -> IntArray:
    """Return 1 or 0 for each unit that a condition counts, in order."""
    counts = unit_classes.take_counts(condition, rows)
    agreed: IntArray = counts[counts.any(axis=1), 0]
    return agreed


def _find_alarms(view: EvidenceView, slot: int) -> Iterator[Condition]:
    """Yield the guards on quality that are in alarm if they are run over the attempt."""
    rows = view.attempt_guard_rows
    rows = rows.select(slice(0, int(np.searchsorted(rows.slot, slot, side="right"))))
    for guard in view.policy.list_guards(view.cell):
        condition = guard.condition
        if not condition.measure.for_gate or condition.population.has_own_series:
            continue
        series = compute_detector_series(guard, rows, view.unit_classes, view.policy)
        if len(series.slots) and series.is_alarm[-1]:
            yield condition
