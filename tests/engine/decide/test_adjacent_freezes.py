"""Freezes that follow each other hold a proposal until the last ends."""

from rollout.engine.decide.proposals import find_freeze_end, list_proposal_holds
from rollout.kernel.policy.policy import Freeze
from tests.factories import CREEK, HOUR, MET, RolloutDriver, kinds, policy


def test_adjacent_freezes_end_with_the_last():
    freezes = (Freeze("Jun 01-02", "fair"), Freeze("Jun 03", "audit"))
    rollout = RolloutDriver(policy(freezes=freezes))
    rollout.approved()
    (proposal,) = rollout.scope.proposals.values()
    end = find_freeze_end(rollout.policy, CREEK, rollout.at)
    assert list_proposal_holds(rollout.scope, rollout.policy, proposal, rollout.at) == (
        ("freeze", "fair", end),
    )
    rollout.at = end - HOUR / 2
    assert rollout.tick({CREEK: MET}) == ()
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]
