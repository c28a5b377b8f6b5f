"""Gates and guards by slice on a database: what replay decides on the same records."""

from dataclasses import replace
from datetime import timedelta
from itertools import accumulate

import numpy as np
import polars as pl
import pytest

from rollout.engine.decide.projection import apply_event
from rollout.engine.decide.scope import Scope
from rollout.engine.events import ProposalRaised, Widened
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.populations import EachValue
from rollout.kernel.words import say_alarms, say_reading
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history
from tests.live.test_live import all_at_first, find_evidence_faults, live, replayed

pytestmark = pytest.mark.simulation
TEXT = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, fox, none]}]
sites: [s0]
windows: [{id: all-day}]
stages: [{id: supervised, blind: 50%, lasts: 400h}]
evidence: {unit: UNIT, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2}
gates:
  - {to: supervised, risk: 20%, minimum: {units: 100, days: 1}, approvals: [operator],
     require: [{measure: agreement, at_least: 50%, slice: group}]}
guards:
  - {measure: agreement, slice: group, at_least: 95%, false_alarm_every: 10, then: suspend}
  - {measure: drift, slice: group, at_most: 2%, false_alarm_every: 10}
  - {measure: drift, at_most: 2%, false_alarm_every: 10, then: suspend}
tick: 1h
"""
STORY = Story(
    seed=3, slots=50, busy=6, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


NARROWING = (
    TEXT.replace("UNIT", "case")
    .replace("lasts: 400h}]", "lasts: 400h}, {id: autonomous, audit: 60%, lasts: 400h}]")
    .replace("units: 100,", "units: 20,")
    .replace("at_least: 50%, slice: group", "at_least: 30%, slice: group")
    .replace(
        "guards:",
        """  - {to: autonomous, risk: 20%, minimum: {units: 5, days: 1}, approvals: [operator],
     require: [{measure: agreement, at_least: 20%}]}
guards:
  - {measure: agreement, at_least: 80%, false_alarm_every: 30, then: one-stage}""",
    )
)


@pytest.fixture(autouse=True)
def small_slices(monkeypatch):
    """Let a slice pass on few units, as a short story has no more."""
    monkeypatch.setattr(EachValue, "minimum", 3)


def sliced_history(policy, story=STORY):
    """Return the story's records with a group for each case, at times none."""
    history = a_history(story, policy)
    groups = np.random.default_rng(1).choice(["a", "b", None], history.cases.height)
    column = pl.Series("attribute:group", groups.tolist(), dtype=pl.String)
    return replace(history, cases=history.cases.with_columns(column))


@pytest.mark.parametrize(
    ("url", "unit", "alarms"),
    [
        ("sqlite", "case", ("agreement of group=", "drift of ")),
        ("postgresql", "episode, episode_span: 10m", ()),
    ],
    indirect=["url"],
)
def test_live_and_replay_read_the_same_slices(database, unit, alarms):
    text = TEXT.replace("UNIT", unit)
    policy = parse_policy(text)
    history, after = sliced_history(policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, "story", history)
    found = live(database, text, slots, after, before_slot=before_slot)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert any(isinstance(event, Widened) for event in expected)
    lines = [say_reading(r) for e in expected if isinstance(e, ProposalRaised) for r in e.readings]
    assert {line.split(" at least")[0] for line in lines} == {
        f"agreement of group={value}" for value in ("(none)", "a", "b")
    }
    said = " ".join(say_alarms(getattr(event, "alarms", ())) for event in expected)
    assert all(alarm in said for alarm in alarms), said
    assert find_evidence_faults(database) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_live_and_replay_go_on_with_the_detectors_of_a_suspension(database):
    policy, after = parse_policy(NARROWING), timedelta(minutes=20)
    history = sliced_history(policy, replace(STORY, seed=1, slots=60))
    slots, expected = replayed(history, policy, after)
    found = live(
        database, NARROWING, slots, after, before_slot=all_at_first(database, "story", history)
    )
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    scopes = accumulate(expected, apply_event, initial=Scope())
    kept = [state for scope in scopes for state in scope.cells.values() if state.grants]
    assert any(state.suspended_by & state.detectors.by_guard.keys() for state in kept)
