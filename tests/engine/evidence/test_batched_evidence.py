"""Figures of each confidence floor, and of each band between two, move in whole batches."""

import numpy as np
import pytest

from rollout.engine.evidence.evidence_view import BATCH_SIZE, select_batches
from rollout.engine.evidence.unit_arrays import UnitArrays

BANDS = 4
NOBODY_STARTED = np.zeros(0, dtype=np.int64)


def draw_units(count):
    """Return units of four bands, the highest one rare, in the order of closing."""
    rng = np.random.default_rng(5)
    bands = rng.choice(BANDS, count, p=[0.5, 0.3, 0.15, 0.05])
    number = np.arange(count)
    return UnitArrays(number // 3, number // 3, bands, number * 0, number // 30, number)


def list_steps(slots):
    """Return by how many units a sum moves, at each slot at which it does."""
    return np.unique(slots, return_counts=True)[1]


@pytest.mark.parametrize("floor", range(BANDS))
def test_a_floor_and_its_band_move_by_at_least_a_batch(floor):
    units, bands = draw_units(900), np.arange(BANDS)
    is_judged = np.ones(len(units), dtype=bool)
    batched = select_batches(units, is_judged, NOBODY_STARTED, bands)
    for part in (batched.unit_class >= floor, batched.unit_class == floor):
        steps = list_steps(batched.slot[part])
        assert len(steps)
        assert steps.min() >= BATCH_SIZE
    whole = select_batches(units, is_judged, NOBODY_STARTED, bands * 0)
    if floor:  # batches of the whole cell show single units of a floor
        assert list_steps(whole.slot[whole.unit_class >= floor]).min() < BATCH_SIZE


def test_without_floors_a_batch_is_of_the_whole_cell():
    units = draw_units(200)
    is_judged = units.unit % 2 == 0
    batched = select_batches(units, is_judged, NOBODY_STARTED, np.zeros(BANDS, dtype=np.int64))
    judged = np.unique(batched.slot[batched.unit % 2 == 0], return_counts=True)[1]
    assert judged.min() >= BATCH_SIZE
    assert 200 - len(batched) < 3 * BATCH_SIZE
