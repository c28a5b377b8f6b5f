"""A replay computes a unit's draw when a stage asks for it; shadow asks for none."""

import pytest

from rollout.engine.evidence import stage_history
from tests.engine.slots.stories import a_history, prepared
from tests.engine.slots.test_fast_forward import told


@pytest.mark.parametrize("seed", [18, 53, 61])
def test_only_units_since_their_cell_left_shadow_are_drawn_and_each_once(seed, monkeypatch):
    policy, story, course = told(seed)
    ready = prepared(a_history(story, policy), policy, course.salt)
    compute, drawn = stage_history.compute_sampling_values, {"stage": [], "audit": []}

    def note(salt, purpose, keys):
        drawn[purpose].extend(keys)
        return compute(salt, purpose, keys)

    monkeypatch.setattr(stage_history, "compute_sampling_values", note)
    result = ready.run(course)
    since_shadow, all_units = set(), set()
    for (cell, _), rows in result.units.cells.items():
        for part in (rows.gate, rows.guard, rows.assisted, rows.planted):
            history = result.stage_histories[cell]
            has_left = part.occurred >= min(history.slots, default=2**62)
            since_shadow.update(part.unit[has_left].tolist())
            all_units.update(part.unit.tolist())
    once = {result.units.unit_keys[unit] for unit in since_shadow}
    for keys in filter(None, drawn.values()):
        assert len(keys) == len(set(keys)) < len(all_units)
        assert set(keys) <= once
    assert any(drawn.values())
