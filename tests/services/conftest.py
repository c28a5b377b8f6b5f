"""A database with the tables, on each engine, as for the store's own tests."""

from tests.store.conftest import _nothing_left_running, database, other, url

__all__ = ["_nothing_left_running", "database", "other", "url"]
