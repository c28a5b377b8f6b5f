"""A database with the tables, on each engine, as for the store's own tests."""

from tests.data.conftest import database, other, url

__all__ = ["database", "other", "url"]
