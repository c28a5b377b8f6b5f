"""Sets of labels on a database: what replay decides on the same records."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.engine.events import ProposalRaised, Widened
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_reading
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history
from tests.live.test_live import all_at_first, find_evidence_faults, live, replayed

pytestmark = pytest.mark.simulation
TEXT = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, fox, none], many: true, overlap: 50%}]
sites: [s0]
stages: [{id: supervised, blind: 50%, lasts: 400h}]
evidence: {unit: case, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2}
gates:
  - to: supervised
    risk: 20%
    minimum: {units: 60, days: 1}
    approvals: [operator]
    require:
      - {measure: agreement, at_least: 50%}
      - {measure: recall, label: bear, at_least: 50%}
guards:
  - {measure: agreement, at_least: 60%, false_alarm_every: 10}
  - {measure: precision, label: fox, at_least: 30%, false_alarm_every: 10}
tick: 1h
"""
STORY = Story(
    seed=3, slots=50, busy=6, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)
PREDICTED = {"bear": "bear;fox", "fox": "fox", "none": "(none of them)"}
DECIDED = {"bear": "bear", "fox": "fox", "none": "(none of them)"}


def set_history(policy):
    """Return the story's records with sets: each `bear` of the model has a fox too."""
    history, column = a_history(STORY, policy), "value:alarm"
    return replace(
        history,
        predictions=history.predictions.with_columns(pl.col(column).replace(PREDICTED)),
        decisions=history.decisions.with_columns(pl.col(column).replace(DECIDED)),
    )


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_live_and_replay_decide_alike_on_sets(database):
    policy = parse_policy(TEXT)
    history, after = set_history(policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, "story", history)
    found = live(database, TEXT, slots, after, before_slot=before_slot)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert any(isinstance(event, Widened) for event in expected)
    lines = [say_reading(r) for e in expected if isinstance(e, ProposalRaised) for r in e.readings]
    assert any(line.startswith("recall of bear at least 50 %") for line in lines)
    assert find_evidence_faults(database) == []
