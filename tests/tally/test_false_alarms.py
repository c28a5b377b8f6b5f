"""The short form of `benchmarks.operational_guards`: false suspensions, and delays of faults."""

import numpy as np
import pytest

from benchmarks.operational_guards import (
    BEARS,
    DOOR,
    PUBLISHED,
    SEEDS,
    TROUBLES,
    count_suspensions,
    measure_delay,
)
from tests.tally.test_episode_series import POLICY

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("plan", [BEARS, DOOR], ids=["bears", "door"])
def test_streams_without_a_fault_are_hardly_ever_suspended(plan):
    counts = [count_suspensions(plan, "at the line", seed, POLICY) for seed in SEEDS[:5]]
    assert np.mean(counts) <= 3
    assert max(counts) <= 7
    assert count_suspensions(plan, "healthy", SEEDS[0], POLICY) == 0


@pytest.mark.parametrize("trouble", TROUBLES[1:], ids=lambda trouble: trouble.name)
def test_faults_are_found_within_half_more_than_published(trouble):
    delays = [measure_delay(BEARS, trouble, seed, POLICY)[0] for seed in range(10)]
    assert np.quantile(delays, 0.9, method="inverted_cdf") <= 1.5 * PUBLISHED["bears", trouble.name]
