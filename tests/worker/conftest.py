"""Fixtures: a database with tables, on each engine."""

from tests.data.conftest import database, url

__all__ = ("database", "url")
