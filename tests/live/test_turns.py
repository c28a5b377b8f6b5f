"""Rollouts take turns: one that counts for long holds up no other's slot."""

from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.scopes import TickSlots
from rollout.engine.decide.commands import Actor
from rollout.kernel.calendar.instants import find_slot_before, to_instant
from rollout.live import tick_passes
from rollout.live.evidence.due_counting import PageSize
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker, TickScheduler
from tests.data.databases import on_sqlite
from tests.features.process.test_health_checks import POLICY
from tests.live.test_live import begun, count_waiting
from tests.live.test_ticks import HISTORY, SLOTS, TICK

pytestmark = pytest.mark.slow

LAST = to_instant(SLOTS[-1], TICK)
PAGE = PageSize(entries=100, cases=100)


def load_last_done(database, name):
    with database.begin_read() as transaction:
        return TickSlots(transaction, Rollouts(transaction).find(name)).load_last_done()


@on_sqlite
def test_another_rollout_ticks_while_one_counts_page_after_page(database, monkeypatch):
    begun(database, HISTORY, SLOTS[0])
    apply_policy(database, POLICY, Actor("zoe"), LAST)
    monkeypatch.setattr(tick_passes, "TURN_SECONDS", 0.0)
    scheduler, done = TickScheduler(database, "one"), []
    scheduler._tickers["story"] = Ticker(database, "story", "one", page_size=PAGE)
    tick = Ticker.tick

    def tick_and_note(own, *args, **named):
        events = tick(own, *args, **named)
        done.append((own._rollout_name, own.is_counting, count_waiting(database)))
        return events

    monkeypatch.setattr(Ticker, "tick", tick_and_note)
    result = scheduler.run_due_ticks(LAST)
    waiting = [left for name, _, left in done if name == "story"]
    assert len(waiting) > 3
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[-1] == 0
    place = next(place for place, (name, *_) in enumerate(done) if name == "ramps")
    assert place <= 1  # its turn comes after one page at most
    assert [name for name, *_ in done].count("ramps") == 1
    assert load_last_done(database, "story") == SLOTS[-1]
    assert load_last_done(database, "ramps") == find_slot_before(LAST, timedelta(minutes=15))
    assert result.events_by_rollout["story"]
