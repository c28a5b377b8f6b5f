"""A pool of cells without gain opens its gate at most as often as the risk allows."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.pooled_gains import CONDITION, RISK, SCENES, count_openings, draw_pool
from rollout.core.policy.gain_readings import is_gain_met

RUNS = 300


@pytest.mark.simulation
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_pool_without_gain_opens_at_most_at_the_risk(scene):
    """The figures of 2,000 runs stand in benchmarks/README.md."""
    assert count_openings(scene, RUNS) <= RISK * RUNS
    assert sum(scene.effects) == 0


@pytest.mark.simulation
def test_the_same_pool_opens_where_the_model_brings_more():
    scene = replace(SCENES[1], effects=(0.15,) * 4)
    units = draw_pool(scene, np.random.default_rng(1))
    assert is_gain_met(CONDITION, units, np.arange(750), RISK).any()
