"""Baselines of sets: one set has one count, however it is written."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import BaselineCount
from rollout.features.records.baselines import BaselineRefusedError, store_baselines
from rollout.live.policy_application import apply_policy
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import NOON

__all__ = ["database", "url"]
ADMIN = Caller("ada", role_assignments=(AssignedRole("admin"),))
POLICY = """
rollout: logos
timezone: UTC
levers: [{id: brands, labels: [puma, adidas], many: true, overlap: 100%}]
sites: [shop]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
"""


def count(action, n):
    since = NOON - timedelta(days=2)
    return BaselineCount(
        site="shop",
        window="always",
        lever="brands",
        action=action,
        n=n,
        since=since,
        until=since + timedelta(days=1),
    )


@on_sqlite
def test_a_set_in_two_spellings_is_refused_and_not_replaced(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON)
    counts = [count("puma;adidas", 3), count("adidas;puma", 4)]
    with pytest.raises(BaselineRefusedError, match="adidas;puma is the set puma;adidas; add up"):
        store_baselines(database, ADMIN, "logos", counts, NOON)
    assert store_baselines(database, ADMIN, "logos", counts[:1], NOON) == 1
