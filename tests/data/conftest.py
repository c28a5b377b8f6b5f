"""Fixtures: a database with tables, on each engine."""

import pytest

from rollout.data.database.session import Database
from tests.data.databases import ENGINES, fresh


@pytest.fixture(params=ENGINES)
def url(request, tmp_path):
    with fresh(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def database(url):
    made = Database(url)
    yield made
    made.close()


@pytest.fixture
def other(url):
    """Return the same database as another process would open it."""
    made = Database(url)
    yield made
    made.close()
