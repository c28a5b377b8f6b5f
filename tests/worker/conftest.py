"""Fixtures: a database with tables, on each engine."""

from tests.store.conftest import database, url

__all__ = ("database", "url")
