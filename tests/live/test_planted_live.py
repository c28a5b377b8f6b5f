"""Planted cases on a database: what replay decides and counts on the same records."""

from datetime import timedelta
from pathlib import Path

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import CasesPlanted, ProposalRaised
from rollout.engine.evidence.case_placement import split_populations
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.records.planted_cases import PlantingRequest, declare_planted_cases
from rollout.features.replay.replay import replay_records
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_reading
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history
from tests.live.test_live import (
    BY_CASE,
    BY_EPISODE,
    all_at_first,
    find_evidence_faults,
    live,
)

pytestmark = pytest.mark.simulation
ZOE = Caller("zoe", role_assignments=(AssignedRole("admin"),))
NATURAL = "require: [{measure: agreement, at_least: 50%}]"
PLANTED = "require: [{measure: agreement, at_least: 50%}, {measure: recall, label: bear, of: planted, at_least: 5%}]"  # fmt: skip # noqa: E501
STORY = Story(
    seed=3, slots=60, busy=3, late=0.15, missing=0.03, quiet=True, versions=2, on_grid=False
)


@pytest.mark.parametrize(
    ("url", "text"),
    [("sqlite", BY_EPISODE), ("postgresql", BY_CASE)],
    ids=["sqlite-episode", "postgresql-case"],
    indirect=["url"],
)
def test_live_and_replay_tell_the_same_planted_cases_apart(database, text):
    assert NATURAL in text
    text = text.replace(NATURAL, PLANTED)
    policy, after = parse_policy(text), timedelta(minutes=20)
    whole = a_history(STORY, policy)
    # the first are natural: a version's first use is that of its first prediction
    keys = {key for n, key in enumerate(whole.cases["case_key"]) if n > 20 and n % 4 == 0}
    history = split_populations(whole, keys)
    options = ReplayOptions(approval_delay=after, skip_idle_slots=False)
    request = ReplayRequest(Path(), RecordPaths(Path(), Path()), options=options)
    done = replay_records(request, policy, history)
    result, tick = done.result, policy.tick
    slots = range(result.first_slot, result.last_slot + 1)
    expected = [e for e in result.events if e.at <= to_instant(slots[-1], tick)]
    import_all = all_at_first(database, "story", history)

    def before_slot(slot, at):
        if slot == slots[0]:
            planting = PlantingRequest(frozenset(keys), "every fourth", file_digest="f" * 64)
            declare_planted_cases(database, ZOE, "story", planting, at)
        return import_all(slot, at)

    found = live(database, text, slots, after, before_slot=before_slot)
    found = [event for event in found if not isinstance(event, CasesPlanted)]
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    readings = [
        say_reading(r) for e in expected if isinstance(e, ProposalRaised) for r in e.readings
    ]
    assert any("recall of bear of planted cases" in reading for reading in readings)
    assert find_evidence_faults(database) == []
