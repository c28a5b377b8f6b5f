"""Why somebody approved: kept with their yes, and no row of before reads or is hashed otherwise."""

from dataclasses import MISSING, fields, replace

import pytest

from rollout.engine.decide.commands import ApproveProposal
from rollout.engine.events import EVENT_TYPES, OMITTED_WHEN_EMPTY, Approved
from rollout.engine.ledger.ledger import build_row, parse_event, to_canonical_json, verify_lines
from rollout.kernel.errors import NotEligibleError
from tests.factories import ANA, BO, CREEK, DAN, MET, NOON, SALTS, RolloutDriver

YES = Approved(at=NOON, by="bo", proposal="P-1", groups=("operator",), evidence_hash="3fe1")
BEFORE = (
    '{"access_head":null,"actor":"bo","at":1811851200000000,"body":{"evidence_hash":"3fe1",'
    '"groups":["operator"],"proposal":"P-1"},'
)


def test_a_yes_without_a_reason_has_the_row_that_it_had_before_there_were_any():
    row = build_row("bears", 1, YES, "", salts=SALTS)
    assert row.format().startswith(BEFORE)
    (read,) = verify_lines([row.format()])
    assert parse_event(read) == YES
    assert YES.reason == ""


def test_a_reason_stands_beside_the_row_and_comes_back():
    said = replace(YES, reason="two cubs")
    row = build_row("bears", 1, said, "", salts=SALTS)
    assert "two cubs" not in to_canonical_json(row.body)
    assert row.body["reason_hash"] == row.texts["reason"].hash
    assert row.hash != build_row("bears", 1, YES, "", salts=SALTS).hash
    (read,) = verify_lines([row.format()])
    assert parse_event(read) == said


@pytest.mark.parametrize("kind", EVENT_TYPES.values(), ids=EVENT_TYPES)
def test_what_came_later_is_empty_where_nothing_was_said(kind):
    for field in fields(kind):
        if OMITTED_WHEN_EMPTY in field.metadata:
            assert field.default is not MISSING
            assert not field.default


def test_the_first_reason_stays_when_a_yes_is_said_again():
    rollout = RolloutDriver()
    rollout.tick({CREEK: MET})
    (proposal,) = rollout.scope.proposals.values()

    def yes(person, reason):
        asked = ApproveProposal(
            at=rollout.at, by=person, proposal=proposal.id,
            evidence_hash=proposal.evidence_hash, reason=reason,
        )  # fmt: skip
        return [event.reason for event in rollout.do(asked)]

    assert yes(ANA, "seen") == ["seen"]
    assert yes(ANA, "changed my mind") == []
    assert yes(BO, "") == [""]


def test_a_third_approver_reads_who_has_approved():
    rollout = RolloutDriver()
    rollout.tick({CREEK: MET})
    (proposal,) = rollout.scope.proposals.values()
    for person in (ANA, BO):
        rollout.do(
            ApproveProposal(
                at=rollout.at, by=person, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
        )
    late = ApproveProposal(
        at=rollout.at, by=DAN, proposal=proposal.id, evidence_hash=proposal.evidence_hash
    )
    with pytest.raises(NotEligibleError, match="has all its approvals, of ana and bo"):
        rollout.do(late)
