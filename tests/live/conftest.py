"""A database with the tables, on each engine, as for the data's own tests; and a shop in it."""

import pytest

from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.evidence.live_evidence import EvidenceCheck
from tests.data.conftest import database, other, url
from tests.live.guarded_desk import POLICY, RIGHT, Desk, widened

__all__ = ["database", "other", "url"]


@pytest.fixture
def desk(database):
    """A desk after three hours; at the end its evidence is compared with a recount."""
    shop = Desk(database, POLICY)
    assert shop.pass_hours(3, RIGHT, RIGHT) == []
    yield shop
    assert_counted(database)


@pytest.fixture
def widened_desk(database):
    """A desk that was widened; at the end its evidence is compared with a recount."""
    yield widened(database)
    assert_counted(database)


def assert_counted(database):
    assert not rebuild_derived_tables(database, "shop")
    assert EvidenceCheck(database, "shop").check_all().faults == []
