"""A year's risk by exact law: what 52 releases of a model at the threshold open, and at what price.

The law of the opening time has no simulation in it. Releases are independent, so a year opens with
1 - (the product of the chances that each release doesn't). The sum of the chances is a little more;
it bounds releases that depend on each other too.
"""

from math import prod

import pytest

from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.statistics.forecast import forecast_opening

RISK = 0.05
THRESHOLD = 0.95
RELEASES = range(1, 53)


def open_each(shares, records):
    """Return the chance of each release to open, with so many records a release."""
    return [
        forecast_opening(THRESHOLD, at_least=THRESHOLD, alpha=RISK * share, horizon=records).chance
        for share in shares
    ]


def open_any(chances):
    """Return the chance that one of independent releases opens."""
    return 1 - prod(1 - chance for chance in chances)


def mean_records(share):
    """Return the mean records until an attempt with this share opens, at 98 % agreement."""
    return forecast_opening(0.98, at_least=THRESHOLD, alpha=RISK * share).mean


@pytest.mark.parametrize(("records", "opened"), [(150, 0.013), (500, 0.028), (3_000, 0.037)])
def test_52_releases_at_the_threshold_open_a_cell_in_at_most_5_percent_of_years(records, opened):
    chances = open_each(map(compute_yearly_share, RELEASES), records)
    assert round(sum(chances), 3) == opened
    assert 0.98 * sum(chances) < open_any(chances) < sum(chances) <= RISK


@pytest.mark.parametrize("planned", [1, 4, 12, 52])
def test_a_plan_of_releases_keeps_the_promise_too(planned):
    shares = [compute_yearly_share(number, planned) for number in RELEASES]
    assert sum(open_each(shares, 3_000)) <= RISK


@pytest.mark.parametrize(
    ("number", "records"), [(1, 376), (2, 471), (5, 595), (12, 712), (52, 905)]
)
def test_the_price_of_an_attempt_is_that_of_the_specification(number, records):
    assert mean_records(compute_yearly_share(number)) == pytest.approx(records, abs=0.5)


@pytest.mark.parametrize(("planned", "records"), [(1, 308), (4, 435), (12, 535), (52, 666)])
def test_planned_releases_cost_what_the_specification_says(planned, records):
    assert mean_records(compute_yearly_share(1, planned)) == pytest.approx(records, abs=0.5)
