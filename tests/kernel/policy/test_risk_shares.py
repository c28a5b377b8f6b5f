"""Shares of the risk: the year's attempts never get more than all of it."""

from itertools import pairwise
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.policy.gates import compute_yearly_share, describe_releases

releases = st.one_of(st.just(0), st.integers(1, 400))


@pytest.mark.parametrize(
    ("number", "share", "at_5", "at_1"),
    [
        (1, 0.382793384, 3.955992, 5.565430),
        (2, 0.135337899, 4.995713, 6.605151),
        (5, 0.034238081, 6.370149, None),
        (12, 0.009208578, 7.683352, 9.292790),
        (52, 0.001020844, 9.882858, None),
    ],
)
def test_the_shares_are_those_of_the_specification(number, share, at_5, at_1):
    found = compute_yearly_share(number)
    assert found == pytest.approx(share, abs=5e-10)
    assert log(1 / (0.05 * found)) == pytest.approx(at_5, abs=5e-7)
    if at_1 is not None:
        assert log(1 / (0.01 * found)) == pytest.approx(at_1, abs=5e-7)


@pytest.mark.parametrize(("count", "total"), [(4, 0.6396), (12, 0.7835), (52, 0.8943)])
def test_the_first_shares_sum_to_what_is_written(count, total):
    found = sum(compute_yearly_share(number) for number in range(1, count + 1))
    assert found == pytest.approx(total, abs=5e-5)


@given(releases)
def test_all_shares_of_a_year_are_at_most_the_whole_risk(planned):
    assert sum(compute_yearly_share(number, planned) for number in range(1, 3000)) <= 1


def test_without_a_plan_a_later_attempt_gets_less():
    shares = [compute_yearly_share(number) for number in range(1, 500)]
    assert all(later < earlier for earlier, later in pairwise(shares))


def test_planned_releases_share_four_fifths():
    assert sum(compute_yearly_share(number, 12) for number in range(1, 13)) == pytest.approx(0.8)
    assert describe_releases(1) == "the first attempt of a year has 80 % of the risk"
