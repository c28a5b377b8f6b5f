"""Figures of each confidence floor, and of each band between two, move in whole batches."""

import numpy as np
import pytest

from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.services.cells.cells import batch_evidence
from rollout.tally.batched_evidence import BATCH_SIZE, batch_view, select_batches
from rollout.tally.unit_arrays import UnitArrays
from tests.replay.test_wave_gates import SEEDS, replay

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


def list_site_totals(view, slots):
    """Return by site of the wave its units up to each slot."""
    totals = {}
    for slot in slots:
        for counts in view.attempt_window.count_at(slot).waves.values():
            for part in counts:
                totals.setdefault(part.site, []).append(part.agreed + part.disagreed)
    return totals


def test_each_cell_of_a_wave_moves_by_a_batch_too():
    moved = 0
    for seed in SEEDS:
        result = replay(seed)
        for view in result.views.values():
            slots = range(result.first_slot, result.last_slot + 1)
            for totals in list_site_totals(batch_view(view), slots).values():
                steps = np.diff([0, *totals])
                assert all(step >= BATCH_SIZE for step in steps if step)
                moved += int((steps > 0).sum())
    assert moved > 10


def test_who_is_asked_at_a_neighbour_reads_batches_of_the_whole_list():
    (key, view), *_ = (
        item for seed in SEEDS for item in replay(seed).views.items() if len(item[1].pool_rows) > 1
    )
    (neighbour, *_) = (cell.site for cell in view.pool_rows if cell != key[0])

    def is_batched(site):
        roles = AssignedRole("viewer"), AssignedRole("reviewer", "story", site)
        return (
            batch_evidence({key: view}, Caller("eve", role_assignments=roles), "story")[key]
            is not view
        )

    assert is_batched(key[0].site)
    assert is_batched(neighbour)
    assert not is_batched("elsewhere")
