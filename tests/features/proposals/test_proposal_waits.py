"""What an approved proposal waits for, in the list of proposals."""

import pytest

from rollout.engine.decide.proposals import ProposalHold
from rollout.engine.words.state_text import describe_hold
from rollout.features.cells.cli import format_proposals
from tests.factories import NOON

PROPOSAL = {
    "id": "P-1",
    "kind": "widening",
    "site": "creek",
    "window": "day",
    "version": "v1",
    "to": "supervised",
    "about": "",
    "approvals": [],
    "state": "approved",
    "required_approvals": ["operator"],
    "allows": "v1 is widened",
    "evidence_hash": "3fe1",
}


@pytest.mark.parametrize(
    ("hold", "expected"),
    [
        (ProposalHold("freeze", "fair", NOON), "end of the freeze (fair), 12:00"),
        (ProposalHold("freeze", "fair"), "end of the freeze (fair)"),
        (ProposalHold("wave", "wave 1: 0 of 2"), "opening of its wave (wave 1: 0 of 2)"),
        (ProposalHold("settling", "", NOON), "recently widened cells to settle, 12:00"),
        (ProposalHold("tick", "", NOON), "next tick, 12:00"),
    ],
)
def test_a_hold_is_named_with_its_end(hold, expected):
    assert describe_hold(hold, lambda at: f"{at:%H:%M}") == expected


def test_the_list_says_what_an_approved_proposal_waits_for():
    waits = [{"reason": "tick", "text": "next tick, 12:00", "until": "2027-06-01T12:00:00Z"}]
    assert "      waits for the next tick, 12:00" in format_proposals(
        [PROPOSAL | {"waits_for": waits}]
    )
    assert "waits for" not in format_proposals([PROPOSAL | {"waits_for": []}])
