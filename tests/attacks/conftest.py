"""A replica of the service on each engine, as the tests of the API have it."""

from tests.api.conftest import (
    client,
    clock,
    database,
    door,
    other,
    service,
    url,
)

__all__ = [
    "client",
    "clock",
    "database",
    "door",
    "other",
    "service",
    "url",
]
