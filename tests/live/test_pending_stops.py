"""A stop that the ledger lacks yet: ticks widen nothing while it is stored for the replicas."""

from dataclasses import replace

import pytest

from rollout import faults
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import PendingStop, store_pending_stop
from rollout.engine.decide.commands import Actor
from rollout.engine.events import Stopped, Widened
from rollout.features.stops.stops import append_pending_stop
from rollout.kernel.errors import StaleRevisionError
from rollout.live import tick_passes
from tests.live.test_ticks import (
    LAST,
    POLICY,
    TICK,
    approved,
    begun_here,
    kinds,
    on_sqlite,
    written,
)

pytestmark = pytest.mark.slow

LATER_STOP = PendingStop(
    "x", "story", POLICY.cells, Actor("bo"), "fog", LAST + TICK / 2, drill=False
)


def store_stop(database, stop=LATER_STOP):
    with database.begin_write() as transaction:
        store_pending_stop(transaction, stop)


def test_nothing_is_widened_after_a_stop_that_the_ledger_lacks(database):
    ticker = begun_here(database)
    at = approved(database, ticker, LAST)
    store_stop(database)
    assert Widened not in kinds(ticker.tick(at))
    append_pending_stop(database, LATER_STOP)
    assert Widened not in kinds(ticker.tick(at + TICK))
    assert Stopped in kinds(written(database))


@on_sqlite
def test_a_stop_of_another_rollout_holds_nothing(database):
    ticker = begun_here(database)
    at = approved(database, ticker, LAST)
    store_stop(database, replace(LATER_STOP, rollout="other"))
    assert Widened in kinds(ticker.tick(at))


@pytest.mark.parametrize(
    ("url", "attempts"), [("sqlite", 4), ("postgresql", 4), ("postgresql", 0)], indirect=["url"]
)
def test_nothing_is_widened_after_a_stop_that_came_while_a_tick_decided(
    database, other, attempts, monkeypatch
):
    monkeypatch.setattr(tick_passes, "OPEN_ATTEMPTS", attempts)  # then the ledger is locked
    ticker = begun_here(database)
    at = approved(database, ticker, LAST)
    stops = [LATER_STOP]

    def stop_elsewhere(_):
        if stops:
            store_stop(other, stops.pop())

    with faults.install_action(stop_elsewhere, "command.decided"):
        events = ticker.tick(at)
    assert stops == []
    assert Widened not in kinds(events)
    append_pending_stop(database, LATER_STOP)
    assert Widened not in kinds(ticker.tick(at + TICK))


def test_a_stop_that_is_stored_refuses_what_gives_more_whoever_appends_it(database):
    ticker = begun_here(database)
    events = ticker.tick(approved(database, ticker, LAST))
    widened = next(event for event in events if isinstance(event, Widened))
    store_stop(database)
    with database.begin_write() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("story"))
        with pytest.raises(StaleRevisionError, match="a stop is pending"):
            ledger.append([widened], after=ledger.load_head().revision)
