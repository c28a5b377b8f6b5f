"""Both errors of a renewal, by the exact law and by simulation."""

import numpy as np
import pytest

from rollout.engine.words.rule_text import describe_renewal_errors
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.statistics.forecast import compute_renewal_chance
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold


def test_errors_of_a_hundred_audits_are_told_both_ways():
    assert describe_renewal_errors(Condition(MEASURES["agreement"], 0.95), 100) == (
        "with 100 audits a cell at the threshold is renewed in 22 %, one at 93 % in 7 %;"
        " a cell at 98 % lapses in 22 %"
    )


@pytest.mark.parametrize("rate", [0.85, 0.9, 0.96])
def test_exact_chance_is_that_of_simulated_grants(rate):
    rng, threshold, renewed = np.random.default_rng(7), get_gate_threshold(0.9, 1.0), 0
    for _ in range(2_000):
        agreed = np.cumsum(rng.random(60) < rate)
        renewed += any(
            threshold.is_met(int(agreed[k - 1]), int(k - agreed[k - 1])) for k in range(48, 61)
        )
    expected = compute_renewal_chance(60, at_least=0.9, rate=rate)
    assert renewed / 2_000 == pytest.approx(expected, abs=0.04)
