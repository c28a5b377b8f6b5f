"""A store gives back when decisions were begun, and a ticker may begin again at any tick."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.features.records.record_import import import_records
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence.unit_counting import open_stored_history
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import a_history
from tests.live.test_live import BY_CASE, STORY, all_at_first, live, replayed

pytestmark = pytest.mark.simulation

AFTER = timedelta(minutes=20)
SECOND = BY_CASE.replace("outside: blind", "outside: blind, second_verdict: 30%")
STEADY = replace(STORY, seed=10, slots=48, busy=3, quiet=False)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_when_a_verdict_was_begun_comes_back_from_the_store(database):
    policy = parse_policy(SECOND)
    history = a_history(replace(STEADY, slots=5), policy)
    begun = history.decisions.with_columns(started_at=pl.col("at") - AFTER)
    timed = replace(history, decisions=begun)
    live(database, SECOND, [480_000], AFTER, before_slot=all_at_first(database, "story", timed))
    with database.begin_read() as transaction:
        found = (
            open_stored_history(transaction, load_rollout_state(transaction, "story"))
            .load_records()
            .decisions
        )
    order = ["case_key", "reviewer"]
    assert found.sort(order)["started_at"].equals(begun.sort(order)["started_at"])


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_a_ticker_that_begins_again_counts_as_one_that_never_stopped(database):
    policy = parse_policy(SECOND)
    history = a_history(STEADY, policy)
    slots, expected = replayed(history, policy, AFTER)

    def before_slot(slot, at):
        if slot == slots[0]:
            import_records(database, "story", history, at)
        return Ticker(database, "story", f"one-{slot}") if (slot - slots[0]) % 7 == 0 else None

    assert list_unsealed_events(
        live(database, SECOND, slots, AFTER, before_slot=before_slot)
    ) == list_unsealed_events(expected)
