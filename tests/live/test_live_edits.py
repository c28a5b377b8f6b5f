"""Edits of a policy and purges: what was counted stays evidence wherever it means the same."""

from dataclasses import replace

import pytest

from rollout.data.tables.tables import external_keys
from rollout.engine.decide.commands import Actor, ApproveProposal
from rollout.engine.events import PolicyApplied, ProposalRaised
from rollout.features.records.record_import import import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from rollout.live.tick_passes import Ticker
from tests.engine.slots.stories import a_history
from tests.live.test_live import ANA, BY_CASE, STORY, begun, replayed, scope_of

ADDED = (
    BY_CASE.replace("[bear, fox, none]", "[bear, fox, none, wolf]")
    .replace("none: wait}", "none: wait, wolf: film}")
    .replace("costs: [", "costs: [{did: film, cost: 3}, ")
)
POLICY = parse_policy(BY_CASE)
HISTORY = a_history(replace(STORY, slots=40), POLICY)
SLOTS, _ = replayed(HISTORY, POLICY, None)
LAST = to_instant(SLOTS[-1], POLICY.tick)


def approve(database, at, name="story"):
    """Let everybody who is asked approve the policy that waits."""
    (waiting,) = [p for p in scope_of(database, name).proposals.values() if p.kind == "policy"]
    for person, group in zip(("bo", "cy"), waiting.needs, strict=False):
        by = Actor(person, (group,))
        approval = ApproveProposal(
            at=at, by=by, proposal=waiting.id, evidence_hash=waiting.evidence_hash
        )
        execute_command(database, name, lambda _, command=approval: command)


def because(events):
    """Return the readings of what was raised, by cell and version."""
    raised = (event for event in events if isinstance(event, ProposalRaised))
    return {(e.cell, e.version): e.readings for e in raised}


@pytest.mark.slow
def test_evidence_counted_before_a_label_was_added_is_evidence_after_it(database):
    ticker = begun(database, HISTORY, SLOTS[0])
    before = because(ticker.tick(LAST))
    apply_policy(database, ADDED, ANA, LAST)
    approve(database, LAST)
    found = ()
    for number in range(1, 60):  # proposals of the policy before expire or are void
        events = ticker.tick(LAST + number * POLICY.tick)
        found = (*found, *events)
    assert any(isinstance(event, PolicyApplied) for event in found)
    again = because(found)
    assert before
    assert {key: again.get(key) for key in before} == before


@pytest.mark.slow
def test_evidence_is_the_same_when_its_keys_were_purged(database):
    text = BY_CASE.replace("rollout: story", "rollout: elsewhere")
    apply_policy(
        database,
        text,
        ANA,
        to_instant(SLOTS[0], POLICY.tick),
        salt=bytes(32),
        service_salt=bytes(32),
    )
    import_records(database, "elsewhere", HISTORY, to_instant(SLOTS[0], POLICY.tick))
    counted = begun(database, HISTORY, SLOTS[0]), Ticker(database, "elsewhere", "one")
    for ticker in counted:
        ticker.tick(LAST, narrow_only=True)
    expected = because(counted[1].tick(LAST + POLICY.tick))
    with database.begin_write() as transaction:
        transaction.execute(external_keys.update().values(key="#" + external_keys.c.key))
    found = because(Ticker(database, "story", "two").tick(LAST + POLICY.tick))
    assert expected
    assert {cell: found.get(cell) for cell in expected} == expected
