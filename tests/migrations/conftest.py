"""A database without any tables, on each engine."""

import pytest

from tests.store.databases import ENGINES, fresh


@pytest.fixture(params=ENGINES)
def url(request, tmp_path):
    with fresh(request.param, tmp_path, migrated=False) as made:
        yield made
