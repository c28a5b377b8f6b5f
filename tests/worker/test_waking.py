"""The scheduler wakes, passes the time in, and goes on when something fails."""

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from apscheduler.schedulers import base
from apscheduler.schedulers.background import BackgroundScheduler

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import TickSlots
from rollout.engine.decide.commands import Actor
from rollout.engine.events import IncidentOpened
from rollout.live import autonomy
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from rollout.worker import jobs
from rollout.worker.jobs import JobScheduler
from tests.api.conftest import (
    clock,
    database,
    door,
    service,
    url,
)
from tests.factories import NOON

__all__ = ["clock", "database", "door", "service", "url"]
POLICY = """
rollout: {}
timezone: UTC
levers: [{{id: parcel, labels: [damaged, sound]}}]
sites: [ramp]
evidence: {{unit: case}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""


@pytest.fixture
def waking(service, monkeypatch):
    """Return a scheduler that runs; PostgreSQL's clock, which no test can set, says nothing."""
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: None)
    made = JobScheduler(service, "here", interval=0.02)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def still(service, monkeypatch):
    """Return a scheduler whose jobs only the test runs."""
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: None)
    return JobScheduler(service, "here")


def last_done(database, name):
    with database.begin_read() as transaction:
        return TickSlots(transaction, Rollouts(transaction).find(name)).load_last_done()


def happens(condition):
    turn = threading.Event()
    return any(condition() or turn.wait(0.02) for _ in range(500))


def test_a_slot_is_done_when_the_clock_reaches_it(waking, database, clock):
    apply_policy(database, POLICY.format("ramps"), Actor("zoe"), NOON)
    assert happens(lambda: last_done(database, "ramps") is not None)
    first = last_done(database, "ramps")
    clock.advance(timedelta(minutes=15))
    assert happens(lambda: last_done(database, "ramps") == first + 1)
    clock.advance(timedelta(hours=1))  # four slots missed are one pass
    assert happens(lambda: last_done(database, "ramps") == first + 5)


def test_a_rollout_that_fails_holds_up_no_other_and_is_told(waking, database, monkeypatch, caplog):
    tick = Ticker.tick

    def failing(self, at, **more):
        if self._rollout_name == "bad":
            raise ZeroDivisionError("broken rollout")
        return tick(self, at, **more)

    monkeypatch.setattr(Ticker, "tick", failing)
    with caplog.at_level(logging.ERROR, logger="rollout.scheduler"):
        for name in ("bad", "good"):
            apply_policy(database, POLICY.format(name), Actor("zoe"), NOON)
        assert happens(lambda: last_done(database, "good") is not None)
        assert happens(lambda: "tick of bad failed" in caplog.text)


def test_a_pass_that_fails_whole_is_told_and_the_next_one_comes(
    waking, service, database, monkeypatch, caplog
):
    apply_policy(database, POLICY.format("ramps"), Actor("zoe"), NOON)
    look, failed = waking._tick_runner.run_due_ticks, []

    def failing(at, **more):
        if not failed:
            failed.append(at)
            raise OSError("the database is away")
        return look(at, **more)

    with caplog.at_level(logging.ERROR, logger="rollout.scheduler"):
        monkeypatch.setattr(waking._tick_runner, "run_due_ticks", failing)
        assert happens(lambda: failed and last_done(database, "ramps") is not None)
        assert "failed; it is tried again" in caplog.text


def test_a_database_whose_clock_is_another_is_no_reason_to_believe_the_later(
    service, clock, monkeypatch
):
    told = [NOON]
    monkeypatch.setattr(autonomy, "load_database_time", lambda _: told[0])
    agreed = autonomy.ClockCheck(service.database, clock)
    assert agreed.now() == autonomy.CheckedTime(NOON)
    told[0] = NOON + timedelta(minutes=2)
    assert agreed.now().at == NOON
    assert "the database's clock" in agreed.now().skew_text
    told[0] = NOON - timedelta(minutes=2)
    assert agreed.now().at == NOON - timedelta(minutes=2)


def test_clocks_that_disagree_open_one_incident_and_widen_nothing(still, database, clock, caplog):
    apply_policy(database, POLICY.format("ramps"), Actor("zoe"), NOON)
    still._run_tick()
    first = last_done(database, "ramps")
    with caplog.at_level(logging.ERROR, logger="rollout.scheduler"):
        clock.at += timedelta(days=900)  # the wall clock alone: no such time has passed
        still._run_tick()
        still._run_tick()
    assert caplog.text.count("only narrowing is written") == 1
    clock.since_boot += 15 * 60
    still._run_tick()
    assert last_done(database, "ramps") == first + 1
    with database.begin_read() as transaction:
        events = list(Ledger(transaction, Rollouts(transaction).find("ramps")).list_events())
    assert [e.kind for e in events if isinstance(e, IncidentOpened)] == ["clock"]
    assert max(e.at for e in events) < NOON + timedelta(hours=1)  # the ledger is not poisoned


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [timedelta(hours=1), timedelta(hours=-1), timedelta(days=366)], ids=str
)
def test_jobs_run_on_while_the_wall_clock_is_elsewhere_and_once_it_is_back(
    waking, monkeypatch, step
):
    runs, shift = [], [timedelta()]

    class Stepping(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + shift[0]

    def run(*_, **__):
        runs.append(1)
        return SimpleNamespace(seconds_by_rollout={}, errors={})

    monkeypatch.setattr(waking._tick_runner, "run_due_ticks", run)
    for module in (base, jobs):
        monkeypatch.setattr(module, "datetime", Stepping)
    for shift[0] in (step, timedelta()):
        runs.clear()
        since = time.monotonic()
        assert happens(lambda: len(runs) >= 10)
        assert time.monotonic() - since < 2


def test_a_job_that_lies_more_than_its_interval_ahead_runs_at_once():
    scheduler, runs = BackgroundScheduler(timezone="UTC"), []
    hourly = jobs.FromNowTrigger(timedelta(hours=1))
    later = datetime.now(UTC) + timedelta(hours=2)
    scheduler.add_job(lambda: runs.append(1), hourly, id="tidy", next_run_time=later)
    watch = jobs.JobWatch(scheduler)
    scheduler.start()
    watch.start()
    try:
        assert happens(lambda: runs)
        planned = scheduler.get_job("tidy").next_run_time
        assert timedelta(minutes=59) < planned - datetime.now(UTC) <= timedelta(hours=1)
    finally:
        watch.stop()
        scheduler.shutdown()
