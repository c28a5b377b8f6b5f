"""Cases on which a version in use is silent: live counts them as replay does, and the auditor."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.engine.evidence.case_placement import place_cases, resolve_natural_units
from rollout.features.records.record_import import import_records
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.units import NOT_PREDICTED
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.tick_passes import Ticker
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import a_history
from tests.live.test_live import (
    BY_CASE,
    BY_EPISODE,
    STORY,
    decide_live_and_replayed,
    find_evidence_faults,
    live,
    replayed,
    until,
)

pytestmark = pytest.mark.simulation
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
AFTER = timedelta(minutes=20)


def leave_out(history, seed, tenths=1):
    """Return a history in which each version is silent on a tenth of the cases, or several."""
    is_sent = pl.struct("case_key", "version").hash(seed) % 10 >= tenths
    return replace(history, predictions=history.predictions.filter(is_sent))


@on_sqlite
@pytest.mark.parametrize("text", [BY_CASE, BY_EPISODE], ids=["case", "episode"])
def test_silent_cases_give_the_same_events_live_and_in_replay(database, text):
    policy = parse_policy(text)
    story = replace(STORY, seed=12, slots=60)
    history = leave_out(a_history(story, policy), 2)
    events, expected = decide_live_and_replayed(database, text, history, AFTER)
    assert list_unsealed_events(events) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []
    assert not rebuild_derived_tables(database, "story")


@on_sqlite
@pytest.mark.parametrize("text", [BY_CASE, BY_EPISODE], ids=["case", "episode"])
def test_a_silent_case_of_the_slot_of_a_first_use_counts_no_earlier_than_that(database, text):
    """By a grace of half a slot, cases of one slot close in two."""
    text = text.replace("grace: 1h", "grace: 30m")
    story, policy = replace(STORY, seed=12, slots=40), parse_policy(text)
    history = leave_out(a_history(story, policy), 2, tenths=5)
    units = resolve_natural_units(place_cases(history, policy, bytes(32)), policy, tracks=["gate"])
    is_silent = pl.col("predicted") == NOT_PREDICTED
    firsts = units.group_by("site", "window", "version").agg(
        silent=pl.col("slot").filter(is_silent).min(), used=pl.col("slot").filter(~is_silent).min()
    )
    assert firsts.filter(pl.col("silent") < pl.col("used")).is_empty()
    assert firsts.filter(pl.col("silent") == pl.col("used")).height
    events, expected = decide_live_and_replayed(database, text, history, AFTER)
    assert list_unsealed_events(events) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []


def predict_late(history, seed):
    """Return a history in which half of the predictions come hours later, after the decisions."""
    is_late = pl.struct("case_key", "version").hash(seed) % 2 == 0
    at = pl.when(is_late).then(pl.col("at") + timedelta(hours=5)).otherwise("at")
    return replace(history, predictions=history.predictions.with_columns(at=at))


@on_sqlite
@pytest.mark.parametrize("text", [BY_CASE, BY_EPISODE], ids=["case", "episode"])
def test_a_late_answer_of_the_slot_of_a_first_use_begins_no_attempt(database, text):
    text = text.replace("grace: 1h", "grace: 90m")
    story = replace(STORY, seed=12, slots=40)
    history = predict_late(a_history(story, parse_policy(text)), 2)
    events, expected = decide_live_and_replayed(database, text, history, AFTER)
    assert list_unsealed_events(events) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []


@on_sqlite
def test_silent_cases_that_come_as_they_are_made_are_counted_when_due(database):
    policy = parse_policy(BY_CASE)
    history = leave_out(a_history(replace(STORY, slots=60), policy), 3)
    slots, expected = replayed(history, policy, AFTER)

    def before_slot(slot, at):
        if (slot - slots[0]) % 10:
            return None
        import_records(database, "story", until(history, at + 9 * policy.tick), at)
        return Ticker(database, "story", "one")

    events = live(database, BY_CASE, slots, AFTER, before_slot=before_slot)
    assert list_unsealed_events(events) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []
