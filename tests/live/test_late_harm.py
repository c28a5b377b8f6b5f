"""A harm is known from when it was first received, whatever time its sender states."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.records.records import Outcome
from rollout.kernel.calendar.instants import Cell, find_slot_after
from rollout.kernel.policy_files.reader import parse_policy
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import a_history
from tests.factories import HOUR, MINUTE
from tests.live.guarded_shop import Shop
from tests.live.test_live import BY_CASE, STORY, decide_live_and_replayed


def read_harms(shop):
    """Return the slots in which the guard on harm counts one, of a process that starts now."""
    state = shop.load_state()
    (guard,) = (g for g in state.policy.guards if g.condition.measure.name == "harm")
    slots, _, is_bad = shop.assert_same(restores=False).read_answers(
        Cell("kiosk", "day"), "v1", guard
    )
    assert is_bad.all()
    return slots.tolist()


def test_a_harm_sent_with_a_time_before_the_guards_span_counts_when_it_comes(database):
    shop = Shop(database)
    shop.send_case()  # else a process that starts reads the case as the last of its site
    key = shop.send_case(ago=timedelta(days=60))
    shop.predict(key)
    shop.send(
        Outcome(key=key, at=shop.now - timedelta(days=59), harm="burn", revision=1), account="till"
    )
    first = find_slot_after(shop.now, HOUR)
    assert read_harms(shop) == [first]
    shop.now += 3 * HOUR
    # the same harm, with a time that no guard reads, and one more
    shop.send(
        Outcome(key=key, at=shop.now - timedelta(days=58), harm="burn", revision=2), account="till"
    )
    assert read_harms(shop) == [first]
    shop.send(Outcome(key=key, at=shop.now - MINUTE, harm="fall", revision=3), account="till")
    assert read_harms(shop) == [first + 3]


def test_a_harm_that_its_source_took_back_counts_again_from_its_next_report(database):
    shop = Shop(database)
    key = shop.send_case()
    shop.predict(key)
    shop.harm(key)
    shop.now += 2 * HOUR
    shop.harm(key, None)
    assert read_harms(shop) == []
    shop.harm(key)
    assert read_harms(shop) == [find_slot_after(shop.now, HOUR)]


@pytest.mark.simulation
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_late_harms_give_the_same_events_live_and_in_replay(database):
    text = BY_CASE.replace("harm, at_most: 1", "harm, at_most: 0")
    history = a_history(replace(STORY, seed=8, slots=90), parse_policy(text))
    events, expected = decide_live_and_replayed(database, text, history, timedelta(minutes=20))
    assert list_unsealed_events(events) == list_unsealed_events(expected)
    assert [e.kind for e in events if getattr(e, "effect", "") == "late"] == ["alarm"] * 2
