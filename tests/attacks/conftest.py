"""A replica of the service on each engine, as the tests of the API have it."""

from tests.api.conftest import (
    _nothing_left_running,
    client,
    clock,
    database,
    door,
    other,
    service,
    url,
)

__all__ = [
    "_nothing_left_running",
    "client",
    "clock",
    "database",
    "door",
    "other",
    "service",
    "url",
]
