"""Clocks that jump, each alone: a replica whose clocks disagree widens nothing, and stops hold."""

from datetime import timedelta

import pytest

from rollout.live import autonomy
from rollout.live.autonomy import ClockCheck
from rollout.live.state_cache import CLOCK_CHECK_INTERVAL
from tests.api.assignments.test_autonomy import Replica, events
from tests.api.conftest import clock, database, door, url
from tests.data.databases import on_sqlite
from tests.features import bear_field as field

pytestmark = pytest.mark.faults
__all__ = ["clock", "database", "door", "url"]
HOUR = timedelta(hours=1)


@pytest.fixture
def database_clock(clock, monkeypatch):
    """Give SQLite a clock: the true time, and how far it is off, as a list of two."""
    true = [clock.at, timedelta(0)]
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: true[0] + true[1])
    return true


@on_sqlite
@pytest.mark.parametrize("direction", ["forwards", "backwards"])
@pytest.mark.parametrize("name", ["wall", "boot", "database"])
def test_a_clock_that_jumps_widens_nothing(name, direction, database, door, clock, database_clock):
    field.autonomous(database)
    replica = Replica(database, door, clock)
    replica.beat()
    check = ClockCheck(database, clock)
    assert check.now().skew_text == ""
    assert (replica.decider(), replica.decider("lake")) == ("model", "model")
    step = HOUR if direction == "forwards" else -HOUR
    if name == "wall":
        clock.at += step
    elif name == "boot":
        clock.since_boot += step.total_seconds()
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
    else:
        database_clock[1] = step
    found = check.now()
    assert "`rollout doctor --rebuild --repair`" in found.skew_text
    assert "clocks disagree" in found.skew_text  # so its ticks only narrow: test_ticks.py
    assert found.at <= database_clock[0]  # the earliest
    replica.pass_time(CLOCK_CHECK_INTERVAL)
    database_clock[0] += timedelta(seconds=CLOCK_CHECK_INTERVAL)
    replica.beat()
    if name != "boot":  # that one only measures spans, from the heartbeat on
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
    assert replica.stop().status_code == 201
    assert replica.decider() == "human"
    assert len(events(database, "Stopped")) == 1


@on_sqlite
def test_a_clock_moved_between_two_reads_raises_no_alarm(database, clock):
    class MovingClock:
        """A simulated clock that is moved once, between the reads of its two times."""

        def now(self):
            return clock.now()

        def read_boot_clock(self):
            if moves:
                clock.advance(moves.pop())
            return clock.read_boot_clock()

    moves = []
    check = ClockCheck(database, MovingClock())
    moves.append(HOUR)
    assert check.now().skew_text == ""
