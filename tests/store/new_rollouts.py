"""Rollouts for tests of the store: each new, with a name that no other has."""

from itertools import count

import pytest

from rollout.store.database.rollouts import Rollouts
from tests.factories import NOON

NAMES = (f"rollout-{number}" for number in count(1))


@pytest.fixture
def rollout(database):
    return created(database)


def created(database):
    with database.writing() as transaction:
        return Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
