"""Evidence that moves in whole batches, for readers who may still be asked for blind reviews.

A sum read before one's own answer and another one after it differ by a batch, not by a case.
"""

from dataclasses import replace
from typing import Final

import numpy as np

from rollout.tally.evidence_view import EvidenceView
from rollout.tally.unit_arrays import BoolArray, IntArray, UnitArrays

BATCH_SIZE: Final = 20
"""Judged units by which figures move at once."""


def batch_view(view: EvidenceView) -> EvidenceView:
    """Return a view whose gate and planted units are counted when their batch is whole.

    Batches don't depend on the span that is read, nor on the slot at which it is read. None has
    units of before and after a start of the cell's stages, attempts or grants: figures since such a
    start, and differences of two of them, are of whole batches too. Each confidence band is batched
    by itself, so that the same holds for figures of a floor and differences between floors.
    """
    starts, planted = _list_starts(view), view.rows.planted
    bands = _list_floor_bands(view)
    rows = replace(
        view.rows,
        gate=_batch_gate_rows(view, starts),
        planted=select_batches(planted, np.ones(len(planted), dtype=bool), starts, bands),
    )
    return replace(view, rows=rows)


def _batch_gate_rows(view: EvidenceView, starts: IntArray) -> UnitArrays:
    gate = view.rows.gate
    whole = view.unit_classes.is_whole_unit & ~view.unit_classes.is_missing
    is_judged = whole[gate.unit_class] if len(gate) else np.zeros(0, dtype=bool)
    is_judged &= view.find_visible(gate)
    return select_batches(gate, is_judged, starts, _list_floor_bands(view))


def _list_floor_bands(view: EvidenceView) -> IntArray:
    """Return the band of each unit class by which figures are read: none without floors."""
    bands = view.unit_classes.bands
    return bands if view.policy.evidence.higher_floors else np.zeros_like(bands)


def select_batches(
    rows: UnitArrays, is_judged: BoolArray, starts: IntArray, bands: IntArray
) -> UnitArrays:
    """Return the rows of whole batches, each with the last slot of its batch.

    Batches run in the order of closing and never split a slot of their band. Those that occurred
    between two `starts` are batched by themselves; what is left over of them stays away.

    Args:
        rows: units of a cell, in the order of closing.
        is_judged: which of them have a decision.
        starts: slots of occurrence that no batch spans.
        bands: confidence band of each unit class.
    """
    period = np.searchsorted(starts, rows.occurred, side="right")
    groups = period * (1 + int(bands.max(initial=0))) + bands[rows.unit_class]
    slots = np.full(len(rows), -1, dtype=np.int64)
    for number in np.unique(groups):
        index = np.flatnonzero(groups == number)
        slots[index] = _find_batch_ends(rows.slot[index], is_judged[index])
    order = np.argsort(slots, kind="stable")
    order = order[slots[order] >= 0]
    return replace(_take(rows, order), slot=slots[order])


def _take(rows: UnitArrays, index: IntArray) -> UnitArrays:
    return UnitArrays(
        rows.slot[index],
        rows.occurred[index],
        rows.unit_class[index],
        rows.reviewer[index],
        rows.day[index],
        rows.unit[index],
    )


def _find_batch_ends(slots: IntArray, is_judged: BoolArray) -> IntArray:
    """Return the last slot of each row's batch, -1 in one that isn't whole."""
    ends = np.full(len(slots), -1, dtype=np.int64)
    if not len(slots):
        return ends
    _, firsts = np.unique(slots, return_index=True)
    counts = np.add.reduceat(is_judged.astype(np.int64), firsts)
    begin = judged = 0
    for count, end in zip(counts.tolist(), [*firsts.tolist()[1:], len(slots)], strict=True):
        judged += count
        if judged >= BATCH_SIZE:
            ends[begin:end] = slots[end - 1]
            begin, judged = end, 0
    return ends


def _list_starts(view: EvidenceView) -> IntArray:
    """Return the slots from which figures of the cell may count."""
    state = view.state
    instants = {state.attempt_since, state.changed_at}
    instants |= {grant.evidence_start for grant in state.grants}
    slots = map(view.find_first_slot, instants)
    return np.array(sorted({*slots, *view.stage_history.slots}), dtype=np.int64)
