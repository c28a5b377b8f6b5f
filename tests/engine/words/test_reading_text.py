"""Readings show mean costs and counts of units, not counts by cost level."""

import pytest

from rollout.engine.words.formatting import format_reading
from rollout.kernel.atomic_files import find_package_data
from rollout.kernel.facts import StoredReading
from rollout.kernel.policy_files.reader import load_policy
from tests.shipped_policies import SHIPPED_POLICIES


def store(measure, threshold, *counts):
    return StoredReading({"measure": measure, "threshold": threshold}, counts, "4.27", "0.05")


@pytest.fixture(scope="module")
def policy():
    return load_policy(SHIPPED_POLICIES["mail-room"])


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (
            store("cost", "0.2", 1043, 18, 5, 26),
            "cost at most 0.2: mean {mean:.3f} days late over 1,092 units",
        ),
        (store("agreement", "0.95", 1245, 3), "agreement at least 95 %: 1,245 of 1,248"),
        (store("cost", "0.2", 1043, 18, 5, 26, 7), "cost at most 0.2: 1,043 18 5 26 7"),
    ],
)
def test_a_reading_shows_the_mean_cost(policy, reading, text):
    assert len(policy.cost_levels) == 4
    counts = (1043, 18, 5, 26)
    mean = sum(n * cost for n, cost in zip(counts, policy.cost_levels, strict=True)) / sum(counts)
    assert mean > 0.01
    assert format_reading(reading, policy) == text.format(mean=mean)


def test_two_cost_levels_are_counted_as_a_share():
    policy = load_policy(find_package_data("config") / "policies" / "smallest.yaml")
    free, costly = policy.cost_levels
    assert free == 0
    text = format_reading(store("cost", "0.3", 9, 1), policy)
    assert text == f"cost at most 0.3: mean {costly / 10:.3f} points over 10 units"
