"""The pieces of the mixture: remainders that join, tails of fifty digits, elementwise shapes."""

import numpy as np
import pytest
from scipy.special import gammaln

from rollout.kernel.statistics.evidence import (
    compute_factorial_remainder,
    compute_half_remainder,
    compute_log_mixture,
)

AROUND_THE_SERIES = np.arange(1.0, 60.0)


def test_the_remainder_of_a_factorial_is_what_gamma_leaves():
    n = AROUND_THE_SERIES
    assert compute_factorial_remainder(n) == pytest.approx(
        gammaln(n + 1) - n * np.log(n) + n, abs=2e-13
    )
    assert compute_factorial_remainder(np.zeros(1)) == pytest.approx([0.0])


def test_the_remainder_at_the_half_is_what_gamma_leaves():
    n = AROUND_THE_SERIES
    assert compute_half_remainder(n) == pytest.approx(
        gammaln(n + 0.5) - n * np.log(n) + n, abs=2e-13
    )
    assert compute_half_remainder(np.zeros(1)) == pytest.approx([np.log(np.pi) / 2])


@pytest.mark.parametrize(
    ("agreed", "disagreed", "line", "expected"),
    [
        (949_971_053, 50_028_947, 0.95, -11.05080714364732),
        (94_720, 5_280, 0.95, -6.416770835449521),
        (2_632, 368, 0.9, -5.039180773056764),
        (999_899_376, 1_000_100_624, 0.5, -12.70827901500072),
    ],
)
def test_just_beyond_the_seam_the_tail_has_fifty_digits_value(agreed, disagreed, line, expected):
    assert compute_log_mixture(agreed, disagreed, threshold=line)[0] == pytest.approx(
        expected, rel=1e-12
    )


def test_counts_and_lines_of_any_shape_are_taken_elementwise():
    agreed, lines = np.array([[3], [300], [0]]), np.array([0.5, 0.9, 0.99, 0.2])
    both = compute_log_mixture(agreed, 40, threshold=lines)
    assert both.shape == (3, 4)
    assert both[1, 2] == compute_log_mixture(300, 40, threshold=0.99)[0]
    assert compute_log_mixture(np.zeros(0), np.zeros(0), threshold=0.5).shape == (0,)
