"""A watched version's records are shown and never counted; it counts only what comes later."""

from datetime import timedelta

import pytest

from rollout.core.errors import NotEligibleError
from rollout.core.policy.version_rules import VersionRule
from rollout.core.scope.commands import AddVersion, ProposeTakeover, Tick
from rollout.core.scope.events import (
    AttemptsBegan,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
)
from tests.core.scope.test_attempts import YearDriver
from tests.factories import (
    BETWEEN,
    BO,
    CREEK,
    CY,
    HOUR,
    LAKE,
    LATENCY,
    MET,
    NOON,
    RolloutDriver,
    alarm,
    kinds,
    policy,
    supervised,
)

WATCHED = policy(versions=(VersionRule("v1", is_watched=True),))


def count_again(rollout):
    """Let the watched version count, with approvals."""
    (raised,) = rollout.edit(policy())
    rollout.approve(raised, BO, CY)
    events = rollout.tick()
    (applied,) = (event for event in events if isinstance(event, PolicyApplied))
    return applied


def test_a_watched_version_begins_no_attempt_and_proposes_nothing():
    rollout = YearDriver(WATCHED, "v1", "v2")
    events = rollout.do(Tick(at=NOON + HOUR, evidence={(CREEK, "v1"): MET, (CREEK, "v2"): MET}))
    assert [e.versions for e in events if isinstance(e, AttemptsBegan)] == [("v2",)]
    assert [e.version for e in events if isinstance(e, ProposalRaised)] == ["v2"]
    assert rollout.state("v2").number == 1, "the watched version took no number"


def test_a_watched_versions_guards_raise_no_alarm():
    assert RolloutDriver(WATCHED).tick({CREEK: alarm(LATENCY)}) == ()


def test_to_watch_a_version_tightens_and_takes_its_grants_and_proposals():
    rollout = supervised()
    rollout.raised()
    events = rollout.edit(WATCHED)
    assert kinds(events) == ["ProposalVoided", "Narrowed", "PolicyApplied"]
    (narrowed,) = (event for event in events if isinstance(event, Narrowed))
    assert (narrowed.to_stage, narrowed.reason) == ("shadow", "the policy only watches v1")
    assert rollout.stage() == "shadow"


def test_to_let_it_count_needs_approvals():
    rollout = RolloutDriver(WATCHED)
    (raised,) = rollout.edit(policy())
    assert isinstance(raised, ProposalRaised)
    assert raised.readings[1] == ("v1 counts as evidence from now on, where it was only watched")


def test_only_what_occurs_later_counts():
    rollout = YearDriver(WATCHED)
    rollout.do(Tick(at=NOON + HOUR, evidence={(CREEK, "v1"): MET}))
    applied = count_again(rollout)
    assert applied.counted == ("v1",)
    for cell in (CREEK, LAKE):
        state = rollout.state(cell=cell)
        assert (state.attempt_since, state.changed_at) == (applied.at, applied.at)
        assert (state.attempt, state.has_begun) == (2, False), "attempt 1 keeps all units"
    assert rollout.count(applied.at + HOUR, "v1") == [[("v1", 2027, 1)]]


def test_a_running_attempt_that_is_watched_for_a_time_begins_again_with_less_risk():
    rollout = YearDriver()
    rollout.count(NOON + HOUR, "v1")
    rollout.edit(WATCHED)
    applied = count_again(rollout)
    assert rollout.count(applied.at + HOUR, "v1") == [[("v1", 2027, 2)]]


def test_a_version_that_was_never_used_counts_from_its_first_use():
    rollout = RolloutDriver(WATCHED, "v2")
    assert count_again(rollout).counted == ()
    rollout.do(AddVersion(at=rollout.at + HOUR, version="v1"))
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert (state.attempt, state.attempt_since) == (1, rollout.at + HOUR)


def test_no_user_proposes_a_watched_version():
    rollout = supervised(policy(versions=(VersionRule("v2", is_watched=True),)), "v1", "v2")
    command = ProposeTakeover(
        at=rollout.at + timedelta(minutes=1),
        by=BO,
        cell=CREEK,
        version="v2",
        to="supervised",
        evidence={(CREEK, "v2"): MET},
    )
    with pytest.raises(NotEligibleError, match="write `evidence: count`"):
        rollout.do(command)


def test_a_version_without_a_row_counts():
    rollout = YearDriver(WATCHED, "v1", "v2")
    assert rollout.count(NOON + HOUR, "v1", "v2", evidence=BETWEEN) == [[("v2", 2027, 1)]]
