"""Forgetting on a database: what replay decides on the same records; recounts agree."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.core.scope.events import ProposalRaised, Widened
from rollout.formats.policy.reader import parse_policy
from tests.chance import list_unsealed_events
from tests.replay.stories import Story, a_history
from tests.services.engine.test_live import all_at_first, find_evidence_faults, live, replayed

pytestmark = pytest.mark.simulation
TEXT = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, fox, none]}]
sites: [s0]
stages: [{id: supervised, blind: 50%, lasts: 400h}]
evidence: {unit: case, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2, forget: RULE}
gates:
  - to: supervised
    risk: 20%
    minimum: {units: 60, days: 1}
    approvals: [operator]
    require:
      - {measure: agreement, at_least: 60%}
      - {measure: recall, label: bear, at_least: 50%}
      - {measure: cost, at_most: 0.5}
guards:
  - {measure: agreement, at_least: 50%, false_alarm_every: 10}
tick: 1h
"""
STORY = Story(
    seed=3, slots=80, busy=3, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


@pytest.mark.parametrize(
    ("rule", "days", "story"),
    [("50 units", 1, STORY), ("weekly", 8, replace(STORY, seed=5, slots=230, busy=0.8))],
)
@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_live_and_replay_decide_alike_where_gates_forget(database, rule, days, story):
    text = TEXT.replace("RULE", rule).replace("days: 1", f"days: {days}")
    policy = parse_policy(text)
    history, after = a_history(story, policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, "story", history)
    found = live(database, text, slots, after, before_slot=before_slot)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert any(isinstance(event, Widened) for event in expected)
    lines = [line for e in expected if isinstance(e, ProposalRaised) for line in e.readings]
    assert any(line.partition(" over blocks ")[2].count("+") > 1 for line in lines)
    assert find_evidence_faults(database) == []
