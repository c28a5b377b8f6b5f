"""Databases on each engine: without any tables, and with those of the program."""

import pytest

from tests.data.databases import ENGINES, fresh


@pytest.fixture(params=ENGINES)
def url(request, tmp_path):
    with fresh(request.param, tmp_path, migrated=False) as made:
        yield made


@pytest.fixture(params=ENGINES)
def current(request, tmp_path):
    """Return a database whose tables a test may change: no other test gets it."""
    with fresh(request.param, tmp_path, reused=False) as made:
        yield made
