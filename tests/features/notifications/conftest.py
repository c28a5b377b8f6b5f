"""A replica with users, channels and a place where messages arrive."""

import pytest

from tests.api.conftest import clock, door
from tests.features.notifications.mailing_list import (
    Mailroom,
    add_users,
    build_notified_service,
)

__all__ = ["clock", "door"]


@pytest.fixture
def mailroom():
    return Mailroom()


@pytest.fixture
def service(database, door, clock):
    add_users(database)
    return build_notified_service(database, door, clock)
