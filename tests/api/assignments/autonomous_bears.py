"""The bears' rollout where the model acts, served by a replica whose clock is the database's."""

from datetime import timedelta

import pytest

from tests.features import bear_field as field

__all__ = ["bears", "clocks_agree"]


@pytest.fixture(autouse=True)
def clocks_agree(monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))


@pytest.fixture
def bears(database):
    field.autonomous(database)
