import numpy as np
import pytest

from rollout.core.policy.measures import Condition
from rollout.core.statistics.evidence import compute_cost_log_e, compute_lower_bound
from rollout.reports.statistics.bounds import compute_bounds, compute_cost_bounds, compute_estimates

LEVELS = (0.0, 0.25, 1.0)


def test_a_cost_bound_is_where_the_evidence_suffices():
    counts = np.array([[900, 8, 2], [60, 5, 0], [10, 0, 3]])
    for row, bound in zip(counts, compute_cost_bounds(counts, LEVELS, alpha=0.05), strict=True):
        assert compute_cost_log_e(LEVELS, row, at_most=bound + 1e-6) > np.log(20)
        assert compute_cost_log_e(LEVELS, row, at_most=bound - 1e-6) < np.log(20)


def test_without_records_a_cost_may_be_anything():
    assert compute_cost_bounds(np.array([[0, 0, 0]]), LEVELS, alpha=0.05)[0] == pytest.approx(1)


def test_a_share_has_the_bound_of_its_gate(bears):
    condition = Condition("agreement", 0.8, at_least=True)
    counts = np.array([[98, 2]])
    assert compute_bounds(condition, counts, 0.05, bears)[0] == compute_lower_bound(
        98, 2, alpha=0.05
    )
    assert compute_estimates(condition, counts, bears)[0] == 0.98


def test_costs_are_in_the_policys_unit(bears):
    condition = Condition("cost", 0.5, at_least=False)
    counts = np.array([[99, 0, 1]])  # one bear missed: 20
    assert compute_estimates(condition, counts, bears)[0] == pytest.approx(0.2)
    assert 0.2 < compute_bounds(condition, counts, 0.05, bears)[0] < 20
