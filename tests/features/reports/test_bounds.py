import numpy as np
import pytest

from rollout.engine.words.formatting import OPENING_NOTE
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.statistics.evidence import (
    compute_bounds,
    compute_cost_bounds,
    compute_cost_log_e,
    compute_estimates,
    compute_lower_bound,
    count_further_agreements,
)

LEVELS = (0.0, 0.25, 1.0)


def test_a_cost_bound_is_where_the_evidence_suffices():
    counts = np.array([[900, 8, 2], [60, 5, 0], [10, 0, 3]])
    for row, bound in zip(counts, compute_cost_bounds(counts, LEVELS, alpha=0.05), strict=True):
        assert compute_cost_log_e(LEVELS, row, at_most=bound + 1e-6) > np.log(20)
        assert compute_cost_log_e(LEVELS, row, at_most=bound - 1e-6) < np.log(20)


def test_without_records_a_cost_may_be_anything():
    assert compute_cost_bounds(np.array([[0, 0, 0]]), LEVELS, alpha=0.05)[0] == pytest.approx(1)


def test_a_share_has_the_bound_of_its_gate(bears):
    condition = Condition(MEASURES["agreement"], 0.8)
    counts = np.array([[98, 2]])
    assert compute_bounds(condition, counts, 0.05, bears)[0] == compute_lower_bound(
        98, 2, alpha=0.05
    )
    assert compute_estimates(condition, counts, bears)[0] == 0.98


def test_costs_are_in_the_policys_unit(bears):
    condition = Condition(MEASURES["cost"], 0.5)
    counts = np.array([[99, 0, 1]])  # one bear missed: 20
    assert compute_estimates(condition, counts, bears)[0] == pytest.approx(0.2)
    assert 0.2 < compute_bounds(condition, counts, 0.05, bears)[0] < 20


FIRST_OF_A_YEAR = compute_yearly_share(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at_least", "true", "text"),
    [
        (0.95, (0.965, 0.97, 0.98), "by 0.5 percentage points at a threshold of"),
        (0.9, (0.93, 0.94, 0.96), "by 0.9 to 1.0 at 90 %"),
    ],
)
def test_the_share_so_far_flatters_when_a_cell_opens_as_the_note_says(at_least, true, text):
    gaps = [round(100 * compute_gap(one, at_least, 0.05 * FIRST_OF_A_YEAR), 1) for one in true]
    ends = dict.fromkeys(f"{end:.1f}" for end in (min(gaps), max(gaps)))
    assert f"by {' to '.join(ends)} " in text
    assert text in OPENING_NOTE


def compute_gap(true, at_least, alpha):
    """Return the mean agreement so far at the opening minus the true one, by exact law."""
    most = 400  # disagreements
    needed = np.array(
        [count_further_agreements(0, f, at_least=at_least, alpha=alpha) for f in range(most)]
    )
    waiting, opened, gap = np.eye(most)[0], 0.0, 0.0
    for n in range(1, 6000):
        waiting = waiting * true + np.concatenate([[0], waiting[:-1] * (1 - true)])
        agreed = n - np.arange(most)
        opening = np.where(agreed >= needed, waiting, 0)
        opened, gap = opened + opening.sum(), gap + float(opening @ (agreed / n - true))
        waiting = waiting - opening
    assert opened > 0.95
    return gap / opened
