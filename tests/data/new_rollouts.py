"""New rollouts for tests of the store, each with a unique name."""

from itertools import count

import pytest

from rollout.data.database.rollouts import Rollouts
from tests.factories import NOON

NAMES = (f"rollout-{number}" for number in count(1))


@pytest.fixture
def rollout(database):
    return created(database)


def created(database):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create(next(NAMES), salt=bytes(32), at=NOON)
