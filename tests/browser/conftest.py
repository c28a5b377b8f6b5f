"""A database with the tables, as for the store's own tests, and a Chromium for each module."""

import pytest

from tests.data.conftest import database, other, url

__all__ = ["browser", "database", "other", "url"]


@pytest.fixture(scope="module")
def browser():
    from tests.browser.chromium import chromium  # noqa: PLC0415 - it skips modules

    with chromium() as opened:
        yield opened
