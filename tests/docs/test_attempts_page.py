"""The page about attempts: its figures are those of the code.

What each retry brings is in tests/attacks/test_retries.py.
"""

import re

import pytest

from rollout.kernel.policy.gates import PLANNED_SHARE, compute_yearly_share
from rollout.kernel.statistics.forecast import forecast_opening
from tests.docs.pages import text_of
from tests.kernel.statistics.test_yearly_risk import RELEASES, open_any, open_each

PAGE = " ".join(text_of("docs/concepts/attempts.md").split())


def test_the_shares_of_the_diagram_are_computed():
    shares = re.findall(r"Attempt (\d+): (\d+) %", PAGE)
    assert [int(number) for number, _ in shares] == [1, 2, 3]
    for number, share in shares:
        assert int(share) == round(100 * compute_yearly_share(int(number)))


def test_the_formula_of_the_shares_is_the_codes():
    power, divisor = re.search(r"k\^−([\d.]+)/([\d.]+)", PAGE).groups()
    planned = float(re.search(r"the first m ([\d.]+)/m", PAGE)[1])
    for number in (1, 2, 12):
        share = number ** -float(power) / float(divisor)
        assert share == pytest.approx(compute_yearly_share(number), rel=1e-3)
        assert planned / 12 == pytest.approx(compute_yearly_share(number, 12))


def test_ten_names_would_open_a_third():
    assert "Ten names" in PAGE
    assert "a third" in PAGE
    for records in (500, 3_000):
        assert open_any(open_each([1.0] * 10, records)) == pytest.approx(1 / 3, abs=0.04)


def test_52_releases_open_as_seldom_as_the_page_has_it():
    low, high = re.search(r"in (\d) to (\d) % of years", PAGE).groups()
    chances = [
        100 * open_any(open_each(map(compute_yearly_share, RELEASES), records))
        for records in (150, 3_000)
    ]
    assert [round(chance) for chance in chances] == [int(low), int(high)]


def median_records(share):
    return forecast_opening(0.98, at_least=0.95, alpha=0.05 * share).median


def test_the_price_is_computed():
    price = r"needs about (\d+) records \(median\), the twelfth (\d+)"
    first, twelfth = re.search(price, PAGE).groups()
    assert median_records(compute_yearly_share(1)) == int(first)
    assert median_records(compute_yearly_share(12)) == int(twelfth)
    assert median_records(1) < int(first)


def test_four_fifths_go_to_the_planned_releases():
    assert "four fifths of the risk equally among the first 12" in PAGE
    assert sum(compute_yearly_share(n, 12) for n in range(1, 13)) == pytest.approx(4 / 5)
    assert PLANNED_SHARE == 4 / 5
