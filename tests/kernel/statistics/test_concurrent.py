"""The test of two sides that a draw parted: vectors of statistics.md §16.2, and its promise."""

import numpy as np
import pytest

from rollout.kernel.statistics.differences import compute_concurrent_log_e

SEED, RUNS, LOOKS = 7, 400, 20


@pytest.mark.parametrize(
    ("model", "people", "share", "log_e"),
    [
        ((70, 20, 10), (70, 20, 10), 0.5, -0.817752060),
        ((60, 30, 10), (75, 15, 10), 0.5, 0.088038118),
        ((600, 300, 100), (700, 210, 90), 0.5, 6.350219072),
        ((900, 180, 30), (70, 30, 1), 0.9, 2.863912000),
    ],
)
def test_the_vectors_of_the_statistics(model, people, share, log_e):
    assert compute_concurrent_log_e(model, people, share=share) == pytest.approx(log_e, abs=5e-10)


def test_no_units_say_nothing():
    assert compute_concurrent_log_e((), (), share=0.5) == pytest.approx(0, abs=1e-12)
    assert compute_concurrent_log_e((0, 0), (0, 0), share=0.9) == pytest.approx(0, abs=1e-12)


def test_the_two_sides_may_be_told_the_other_way_round():
    there = compute_concurrent_log_e((60, 30), (20, 20), share=0.7)
    back = compute_concurrent_log_e((20, 20), (60, 30), share=0.3)
    assert there == pytest.approx(back, abs=1e-12)


@pytest.mark.slow
def test_a_test_that_looks_daily_is_wrong_in_one_run_of_twenty_at_most():
    """With seasons: what comes changes from look to look, and the draw stays what it is."""
    chance = np.random.default_rng(SEED)
    ever = 0
    for _ in range(RUNS):
        counts = np.zeros((2, 3), dtype=int)
        for _ in range(LOOKS):
            comes = chance.multinomial(60, chance.dirichlet((3, 2, 1)))
            held = chance.binomial(comes, 0.3)
            counts += np.array([comes - held, held])
            if compute_concurrent_log_e(counts[0], counts[1], share=0.7) >= np.log(20):
                ever += 1
                break
    assert ever / RUNS <= 0.05


@pytest.mark.parametrize(
    ("model", "people", "share", "says"),
    [
        ((1,), (1,), 1.0, "share is 1"),
        ((1, 2), (1,), 0.5, "2 kinds on one side and 1"),
        ((-1,), (1,), 0.5, "a count is -1"),
    ],
)
def test_what_is_no_count_is_refused(model, people, share, says):
    with pytest.raises(ValueError, match=says):
        compute_concurrent_log_e(model, people, share=share)
