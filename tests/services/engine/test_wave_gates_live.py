"""Gates over a wave on a database: what replay decides on the same records; recounts agree."""

from datetime import timedelta

import pytest

from rollout.core.policy.wave_conditions import parse_wave_counts
from rollout.core.scope.events import PolicyApplied, ProposalRaised, Widened
from rollout.formats.policy.reader import parse_policy
from rollout.services.engine.policy_application import apply_policy
from rollout.services.engine.ticks import Ticker
from rollout.services.records.record_import import import_records
from rollout.tally.slots import to_instant
from tests.chance import list_unsealed_events
from tests.replay.stories import Story, a_history
from tests.services.engine.test_live import (
    ANA,
    People,
    all_at_first,
    find_evidence_faults,
    live,
    replayed,
    scope_of,
)
from tests.services.engine.test_live_edits import approve

pytestmark = pytest.mark.simulation
TEXT = """
rollout: story
timezone: UTC
levers: [{id: alarm, labels: [bear, fox, none]}]
sites: [s0, s1, s2, {id: s3, wave: 2}]
stages: [{id: supervised, blind: 50%, lasts: 60h}]
evidence: {unit: case, grace: 1h, missing_at_most: 50%, outside: blind, releases: 2}
waves: {stage: supervised, hold: 4h}
gates:
  - to: supervised
    risk: 20%
    minimum: {units: 20, days: 1}
    approvals: [operator]
    require: [{measure: agreement, at_least: 55%, pool: wave, each_at_least: 40%}]
guards:
  - {measure: agreement, at_least: 35%, false_alarm_every: 10}
tick: 1h
"""
STORY = Story(
    seed=3, slots=120, busy=3, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_live_and_replay_decide_alike_where_gates_count_a_wave(database):
    policy = parse_policy(TEXT)
    history, after = a_history(STORY, policy), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    before_slot = all_at_first(database, "story", history)
    found = live(database, TEXT, slots, after, before_slot=before_slot)
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert len({event.cell for event in expected if isinstance(event, Widened)}) > 1
    raised = [event for event in expected if isinstance(event, ProposalRaised)]
    kinds = {event.kind for event in raised}
    assert kinds >= {"widening", "renewal"}
    lines = [line for event in raised for line in event.readings]
    counts = [
        parse_wave_counts(part.partition(" over sites ")[2].partition(" (")[0]) for part in lines
    ]
    assert {tuple(part.site for part in wave) for wave in counts} >= {("s0", "s1", "s2")}
    assert find_evidence_faults(database) == []


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_ticks_go_on_when_an_edit_removes_a_site_that_held_a_grant(database):
    policy = parse_policy(TEXT)
    history = a_history(STORY, policy)
    slots, _ = replayed(history, policy, policy.tick / 3)
    at = to_instant(slots[0], policy.tick)
    apply_policy(database, TEXT, ANA, at, salt=bytes(32))
    import_records(database, "story", history, at)
    ticker, people = Ticker(database, "story", "one"), People(database, "story", policy.tick / 3)
    removed = None
    while removed is None:
        people.act(at)
        events = ticker.tick(at)
        people.hear(events)
        removed = next((e.cell for e in events if isinstance(e, Widened)), None)
        at += policy.tick
    ticker.tick(at)
    shorter = TEXT.replace(f"{removed.site}, ", "")
    apply_policy(database, shorter, ANA, at)
    approve(database, at)
    found = [e for n in range(1, 6) for e in ticker.tick(at + n * policy.tick)]
    assert any(isinstance(event, PolicyApplied) for event in found)
    assert Ticker(database, "story", "two").tick(at + 9 * policy.tick) is not None
    assert scope_of(database).get_holder(removed) is None
    assert find_evidence_faults(database) == []
