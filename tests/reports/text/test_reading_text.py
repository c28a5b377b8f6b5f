"""Readings show mean costs and counts of units, not counts by cost level."""

import pytest

from rollout.formats.policy.reader import read_policy
from rollout.reports.text.value_text import format_reading
from rollout.services.support.package_data import find_package_data
from tests.shipped_policies import SHIPPED_POLICIES

FIGURES = ", log E 4.271300 of 2.995732 (risk 0.05)"


@pytest.fixture(scope="module")
def policy():
    return read_policy(SHIPPED_POLICIES["mail-room"])


@pytest.mark.parametrize("figures", ["", FIGURES])
@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (
            "cost at most 0.2: 1043 18 5 26",
            "cost at most 0.2: mean {mean:.3f} days late over 1,092 units",
        ),
        ("agreement at least 95%: 1245 of 1248", "agreement at least 95%: 1,245 of 1,248"),
        ("cost at most 0.2: 1043 18 5 26 7", "cost at most 0.2: 1,043 18 5 26 7"),
        ("ends stop S-1", "ends stop S-1"),
    ],
)
def test_a_reading_shows_the_mean_cost(policy, reading, text, figures):
    assert len(policy.cost_levels) == 4
    counts = (1043, 18, 5, 26)
    mean = sum(n * cost for n, cost in zip(counts, policy.cost_levels, strict=True)) / sum(counts)
    assert mean > 0.01
    assert format_reading(reading + figures, policy) == text.format(mean=mean)


def test_a_reading_says_that_audits_are_weighted(policy):
    figures = ", log E 0.519000 of 0.000000 over audits {} (risk 1)"
    share = "agreement at least 95 %: 1058 of 1062" + figures.format("1 1056+0 0.5 40+10")
    assert format_reading(share, policy).replace("\xa0", " ") == (
        "agreement at least 95 %: 1,058 of 1,062 and, weighted by the audits' shares, 99.5 % of"
        " 1,106 audits"
    )
    first, second, *_ = policy.cost_levels
    assert first == 0
    cost = "cost at most 0.2: 10 1 0 0" + figures.format("1 10+0+0+0 0.5 10+10+0+0")
    text = format_reading(cost, policy).replace("\xa0", " ")
    mean = f"a mean of {second / 4:.3f} over 30 audits"
    assert text.endswith(f"over 11 units and, weighted by the audits' shares, {mean}")
    odd = "cost at most 0.2: 9 of 10" + figures.format("1 9+1")
    assert format_reading(odd, policy).endswith("and, weighted by the audits' shares, 10 audits")


def test_two_cost_levels_are_counted_as_a_share():
    policy = read_policy(find_package_data("config") / "policies" / "smallest.yaml")
    free, costly = policy.cost_levels
    assert free == 0
    found = format_reading("cost at most 0.3: 9 of 10", policy)
    assert found == f"cost at most 0.3: mean {costly / 10:.3f} points over 10 units"
