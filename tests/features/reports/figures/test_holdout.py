from itertools import product
from math import comb, exp

import numpy as np
import pytest

from rollout.kernel.statistics.differences import compute_concurrent_log_e
from rollout.kernel.statistics.evidence import compute_action_mix_log_e


@pytest.mark.parametrize(
    ("model", "people", "share", "log_e"),
    [
        ((70, 20, 10), (70, 20, 10), 0.5, -0.817752060),
        ((60, 30, 10), (75, 15, 10), 0.5, 0.088038118),
        ((600, 300, 100), (700, 210, 90), 0.5, 6.350219072),
        ((900, 180, 30), (70, 30, 1), 0.9, 2.863912000),
    ],
)
def test_the_hold_out_has_the_published_evidence(model, people, share, log_e):
    assert compute_concurrent_log_e(model, people, share=share) == pytest.approx(log_e, abs=1e-9)


@pytest.mark.parametrize(
    ("counts", "log_e"),
    [
        ((70, 20, 9, 1), -0.793260433),
        ((660, 240, 90, 10), 0.648715811),
        ((600, 250, 120, 30), 22.619694870),
    ],
)
def test_a_fixed_baseline_has_the_published_evidence(counts, log_e):
    assert compute_action_mix_log_e(counts, (0.7, 0.2, 0.09, 0.01)) == pytest.approx(
        log_e, abs=1e-9
    )


@pytest.mark.parametrize("share", [0.5, 0.8])
def test_the_evidence_of_a_hold_out_is_one_on_average_where_nothing_differs(share):
    """Exact: with so many cases of each action, the model's are binomial whatever their mix."""
    sizes = (6, 4)
    mean = sum(
        np.prod([comb(n, a) * share**a * (1 - share) ** (n - a)
                 for n, a in zip(sizes, by_model, strict=True)])
        * exp(compute_concurrent_log_e(by_model, np.subtract(sizes, by_model), share=share))
        for by_model in product(*(range(n + 1) for n in sizes))
    )  # fmt: skip
    assert mean == pytest.approx(1, abs=1e-9)


def test_without_cases_there_is_no_evidence():
    assert compute_concurrent_log_e((0, 0), (0, 0), share=0.5) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("model", "people", "share"), [((1,), (1, 2), 0.5), ((1, -1), (1, 2), 0.5), ((1,), (1,), 1.0)]
)
def test_what_can_not_be_is_refused(model, people, share):
    with pytest.raises(ValueError, match=r"count|share|kinds"):
        compute_concurrent_log_e(model, people, share=share)


def test_seasons_alone_are_no_evidence_and_a_model_that_acts_otherwise_is():
    """Shares of an action swing between .1 and .5 by the day; the draw sends 70 % to the model."""
    generator = np.random.default_rng(9)
    often = np.where(np.arange(40) % 2, 0.1, 0.5)
    model, people = generator.binomial(70, often).sum(), generator.binomial(30, often).sum()
    alike = compute_concurrent_log_e((model, 2800 - model), (people, 1200 - people), share=0.7)
    assert alike < np.log(20)
    more = generator.binomial(70, often + 0.08).sum()
    assert compute_concurrent_log_e(
        (more, 2800 - more), (people, 1200 - people), share=0.7
    ) > np.log(20)
