"""Newer counting rules: an admin proposes them, an operator approves, and they are written once."""

import pytest

from rollout.core.errors import (
    EvidenceChangedError,
    OwnProposalError,
    ProposalClosedError,
    RefusalError,
    UserRequiredError,
)
from rollout.core.scope.commands import ApproveProposal, ProposeRules
from rollout.core.scope.events import ProposalVoided, RulesApplied
from rollout.core.scope.projection import apply_events
from rollout.core.scope.proposals import compute_evidence_hash
from tests.factories import (
    ANA,
    BO,
    BOT,
    CREEK_NIGHT,
    LAKE,
    Actor,
    kinds,
    policy,
    supervised,
)

ZOE = Actor("zoe", groups=())
EFFECTS = ("counting rules 2 in place of 1", "creek/day v1: of 120 counted units 80 from u-a")
HASH = compute_evidence_hash(EFFECTS)


def ask(rollout, by=ZOE, effects=EFFECTS, cited=HASH):
    command = ProposeRules(at=rollout.at, by=by, effects=effects, evidence_hash=cited)
    return rollout.do(command)


def approve(rollout, by, **more):
    proposal = rollout.open("rules")
    return rollout.do(
        ApproveProposal(
            at=rollout.at, by=by, proposal=proposal.id, evidence_hash=proposal.evidence_hash, **more
        )
    )


def test_an_operator_approves_what_an_admin_proposed_and_grants_stay():
    rollout = supervised()
    before = rollout.scope
    assert before.rules == 1
    assert kinds(ask(rollout)) == ["ProposalRaised"]
    assert rollout.scope.rules == 1
    (applied,) = approve(rollout, BO)[1:]
    assert (applied.number, applied.proposal) == (2, f"P-{rollout.scope.proposal_count}")
    assert rollout.scope.rules == 2
    assert rollout.scope.proposals == before.proposals
    assert rollout.scope.cells == before.cells


def test_the_admin_alone_cannot_apply_them():
    rollout = supervised()
    both = Actor("zoe", groups=("operator",))
    ask(rollout, by=both)
    with pytest.raises(OwnProposalError):
        approve(rollout, both)
    assert rollout.scope.rules == 1


def test_a_service_account_proposes_none():
    with pytest.raises(UserRequiredError):
        ask(supervised(), by=BOT)


def test_a_plan_that_has_changed_is_refused():
    changed = (*EFFECTS, "lake/day v1: of 3 counted units 3 from u-a")
    with pytest.raises(EvidenceChangedError, match="read the plan again"):
        ask(supervised(), effects=changed)


def test_they_are_written_once():
    rollout = supervised()
    ask(rollout)
    assert ask(rollout) == ()
    proposal = rollout.open("rules")
    approve(rollout, BO)
    with pytest.raises(RefusalError, match="counting rules 2, the newest"):
        ask(rollout)
    with pytest.raises(ProposalClosedError):
        rollout.do(
            ApproveProposal(
                at=rollout.at, by=ANA, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
        )
    assert sum(isinstance(event, RulesApplied) for event in rollout.events) == 1
    assert apply_events(rollout.events) == rollout.scope


def test_proposals_that_rest_on_lost_units_become_void_with_the_reason():
    rollout = supervised()
    lost, other = rollout.raised(LAKE), rollout.raised(CREEK_NIGHT)
    ask(rollout)
    reasons = {lost.id: "80 of 120 counted units", "P-999": "closed meanwhile"}
    events = approve(rollout, BO, void_reasons=reasons)
    assert kinds(events) == ["Approved", "ProposalVoided", "RulesApplied"]
    assert (events[1].proposal, events[1].reason) == (lost.id, "80 of 120 counted units")
    assert list(rollout.scope.proposals) == [other.id]


def test_a_policy_edit_voids_the_proposal_of_rules():
    rollout = supervised()
    ask(rollout)
    events = rollout.edit(policy(open_for=rollout.policy.open_for / 2))
    assert [e.reason for e in events if isinstance(e, ProposalVoided)] == ["the policy was edited"]
    assert rollout.scope.rules == 1
