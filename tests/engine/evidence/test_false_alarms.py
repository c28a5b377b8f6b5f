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
    measure_silence,
)
from tests.engine.evidence.test_episode_series import POLICY

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize("plan", [BEARS, DOOR], ids=["bears", "door"])
def test_streams_without_a_fault_are_hardly_ever_suspended(plan):
    counts = [count_suspensions(plan, "at the line", seed, POLICY) for seed in SEEDS[:3]]
    totals = [count.total() for count in counts]
    assert np.mean(totals) <= 3
    assert max(totals) <= 7
    healthy = count_suspensions(plan, "healthy", SEEDS[0], POLICY)
    assert healthy.total() == healthy["heartbeat"] <= 1


@pytest.mark.parametrize(
    ("plan", "has_pings", "minutes"),
    [(DOOR, False, 49), (DOOR, True, 30), (BEARS, True, 120)],
    ids=["door by traffic", "door", "bears"],
)
def test_silence_is_noticed_within_half_more_than_published(plan, has_pings, minutes):
    delays = [measure_silence(plan, seed, POLICY, has_pings=has_pings) for seed in range(5)]
    assert np.median(delays) <= 1.5 * minutes
    assert max(delays) < np.inf


@pytest.mark.parametrize("trouble", TROUBLES[1:], ids=lambda trouble: trouble.name)
def test_faults_are_found_within_half_more_than_published(trouble):
    delays = [measure_delay(BEARS, trouble, seed, POLICY)[0] for seed in range(10)]
    assert np.quantile(delays, 0.9, method="inverted_cdf") <= 1.5 * PUBLISHED["bears", trouble.name]
