"""A ledger whose time is ahead: two people set it right, and nothing lost comes back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rollout.core.errors import OwnProposalError, ProposalClosedError, UserRequiredError
from rollout.core.ledger.ledger import build_ledger, parse_event, verify_lines
from rollout.core.scope.commands import (
    ApproveProposal,
    ProposeClockCorrection,
    RejectProposal,
    Tick,
)
from rollout.core.scope.events import ClockCorrected
from rollout.core.scope.projection import apply_events
from rollout.core.scope.scope import compute_stage_level
from tests.factories import (
    ANA,
    BETWEEN,
    BO,
    BOT,
    CREEK,
    CY,
    DAN,
    DAY,
    HOUR,
    LAKE,
    MET,
    MINUTE,
    SALTS,
    TICK,
    Actor,
    RolloutDriver,
    kinds,
    policy,
    supervised,
)


def ahead(by: timedelta, build=supervised) -> RolloutDriver:
    """Return a rollout, CREEK at supervised, whose ledger was once written `by` too late."""
    rollout = build()
    rollout.after(HOUR)
    rollout.do(Tick(at=rollout.at + by, evidence={(LAKE, "v1"): MET}))  # the clock had jumped
    return rollout


def ask(rollout: RolloutDriver, by: Actor = ANA):
    return rollout.do(ProposeClockCorrection(at=rollout.at, by=by))


def approve(rollout: RolloutDriver, *people: Actor):
    """Say yes to the correction that is open; return what follows from the last yes."""
    proposal, events = rollout.open("clock"), ()
    for by in people:
        said = ApproveProposal(
            at=rollout.at, by=by, proposal=proposal.id, evidence_hash=proposal.evidence_hash
        )
        events = rollout.do(said)
    return events


def set_right(rollout: RolloutDriver):
    """Ask for the correction and have it approved."""
    ask(rollout)
    return approve(rollout.after(MINUTE), BO, DAN)


def test_two_people_set_the_ledgers_time_back_to_the_clocks():
    rollout = ahead(10 * DAY)
    was = rollout.scope.at
    events = set_right(rollout)
    assert events[-1] == ClockCorrected(
        at=rollout.at, by="policy", previous_time=was, proposal="P-3"
    )
    assert rollout.scope.at == rollout.at == was - 10 * DAY + MINUTE
    assert rollout.stage() == "supervised"
    assert rollout.scope.proposals == {}


def test_the_time_is_set_by_the_clocks_instant_in_whatever_zone_it_is_told():
    rollout = ahead(10 * DAY)
    rollout.at = rollout.at.astimezone(ZoneInfo("America/Denver"))
    corrected = set_right(rollout)[-1]
    assert (corrected.at, corrected.at.tzinfo) == (rollout.at, UTC)


def test_until_then_nothing_is_raised_or_applied_and_then_it_is():
    rollout = ahead(10 * DAY)
    assert "ProposalRaised" not in kinds(rollout.tick({CREEK: MET}))
    set_right(rollout)
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalRaised"]
    assert rollout.events[-1].at == rollout.at


def test_the_proposal_says_what_is_wrong_and_asks_two_others():
    rollout = ahead(10 * DAY)
    (raised,) = ask(rollout)
    assert (raised.kind, raised.by, raised.needs) == ("clock", "ana", ("operator", "operator"))
    assert raised.readings == (
        f"the ledger's last entry is of {rollout.scope.at.isoformat()}",
        f"the clock shows {rollout.at.isoformat()}",
    )
    with pytest.raises(OwnProposalError):
        rollout.approve(raised, ANA)
    assert kinds(approve(rollout, BO)) == ["Approved"]
    assert "ClockCorrected" not in kinds(rollout.tick())


def test_keys_correct_no_clock():
    with pytest.raises(UserRequiredError):
        ask(ahead(DAY), BOT)


def test_asked_for_again_it_is_the_proposal_that_is_open():
    rollout = ahead(DAY)
    ask(rollout)
    assert ask(rollout, DAN) == ()


@pytest.mark.parametrize("by", [timedelta(), MINUTE])
def test_a_clock_that_is_right_needs_no_correction(by):
    assert ask(ahead(by)) == ()


@pytest.mark.parametrize(("by", "stage"), [(89 * DAY, "supervised"), (91 * DAY, "shadow")])
def test_what_lapsed_while_the_ledger_was_ahead_stays_lapsed(by, stage):
    rollout = ahead(by)
    set_right(rollout)
    assert rollout.stage() == stage
    back = datetime(2027, 6, 1, tzinfo=UTC)
    assert (
        rollout.policy.stage_ids[
            compute_stage_level(rollout.scope, rollout.policy, CREEK, "v1", back)
        ]
        == stage
    )


def test_a_grant_that_was_given_too_late_neither_holds_nor_wakes_up():
    rollout = RolloutDriver()
    rollout.approved()
    jumped = rollout.at + 10 * DAY
    widened = rollout.do(Tick(at=jumped, evidence={(CREEK, "v1"): MET}))
    assert "Widened" in kinds(widened)
    set_right(rollout)
    assert rollout.stage() == rollout.stage(at=jumped) == "shadow"


def test_what_was_open_is_void_and_may_be_raised_again():
    rollout = ahead(10 * DAY)
    assert rollout.open("widening").cell == LAKE
    assert kinds(set_right(rollout)) == ["Approved", "ProposalVoided", "ClockCorrected"]
    assert kinds(rollout.tick({LAKE: MET})) == ["ProposalRaised"]


def test_after_it_minimums_count_from_then_and_not_from_the_time_that_never_was():
    rollout = ahead(91 * DAY)
    set_right(rollout)
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert state.changed_at <= rollout.at
    assert state.attempt_since <= rollout.at


def test_a_clock_that_caught_up_makes_the_correction_void():
    rollout = ahead(HOUR)
    ask(rollout)
    rollout.after(2 * HOUR)
    assert kinds(rollout.tick({CREEK: BETWEEN}))[:1] == ["ProposalVoided"]


def test_a_clock_that_catches_up_between_two_approvals_makes_it_void_too():
    rollout = ahead(HOUR)
    ask(rollout)
    approve(rollout, BO)
    rollout.after(2 * HOUR)
    assert kinds(approve(rollout, DAN)) == ["Approved", "ProposalVoided"]


def test_a_clock_set_back_further_since_is_not_followed():
    rollout = ahead(10 * DAY)
    ask(rollout)
    rollout.after(-2 * HOUR)
    assert kinds(approve(rollout, BO, DAN)) == ["Approved"]
    assert "ClockCorrected" not in kinds(rollout.tick())
    rollout.after(2 * HOUR)
    assert kinds(rollout.tick())[-1] == "ClockCorrected"  # a tick makes up for it


def test_it_expires_by_the_clock_and_not_by_the_ledger():
    rollout = ahead(900 * DAY)
    ask(rollout)
    rollout.after(14 * DAY - TICK - MINUTE)
    rollout.approve(rollout.open("clock"), BO)
    assert "ProposalExpired" not in kinds(rollout.tick())
    rollout.after(MINUTE)
    proposal = rollout.open("clock")
    late = ApproveProposal(
        at=rollout.at, by=DAN, proposal=proposal.id, evidence_hash=proposal.evidence_hash
    )
    with pytest.raises(ProposalClosedError):
        rollout.do(late)
    assert "ProposalExpired" in kinds(rollout.tick())


def test_it_may_be_rejected():
    rollout = ahead(DAY)
    ask(rollout)
    name = rollout.open("clock").id
    assert kinds(rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=name))) == [
        "ProposalRejected"
    ]


def test_an_edit_of_the_policy_leaves_it_alone():
    rollout = ahead(DAY)
    ask(rollout)
    rollout.edit(policy(slices=("weather",)))
    rollout.approve(rollout.edit(policy(slices=("weather",), lease=HOUR))[0], BO, CY)
    assert rollout.open("clock")


def test_a_policy_that_only_observes_has_its_clock_set_right_too():
    rollout = ahead(DAY, lambda: RolloutDriver(policy(observe=True)))
    assert kinds(set_right(rollout))[-1] == "ClockCorrected"


def test_narrowing_goes_on_while_the_ledger_is_ahead():
    rollout = ahead(10 * DAY)
    assert kinds(rollout.narrow()) == ["Narrowed"]


def test_the_written_ledger_folds_to_the_same_scope():
    rollout = ahead(91 * DAY)
    set_right(rollout)
    lines = [row.format() for row in build_ledger("bear-alarm", rollout.events, SALTS)]
    assert apply_events(map(parse_event, verify_lines(lines))) == rollout.scope
