"""A database without any tables, on each engine."""

import pytest

from tests.store.databases import ENGINES, close_server, close_templates, fresh


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_running():
    yield
    close_server()
    close_templates()


@pytest.fixture(params=ENGINES)
def url(request, tmp_path):
    with fresh(request.param, tmp_path, migrated=False) as made:
        yield made
