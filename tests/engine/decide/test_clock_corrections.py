"""A ledger whose time is ahead: an acknowledgement sets it right, and nothing lost comes back."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rollout.engine.decide.commands import AcknowledgeIncident, CheckClock, Tick
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import compute_stage_level
from rollout.engine.events import ClockCorrected
from rollout.engine.ledger.ledger import build_ledger, parse_event, verify_lines
from rollout.kernel.errors import UserRequiredError
from tests.factories import (
    BO,
    BOT,
    CREEK,
    DAY,
    HOUR,
    LAKE,
    MET,
    MINUTE,
    SALTS,
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


def check(rollout: RolloutDriver, last_slot: datetime | None = None):
    return rollout.do(CheckClock(at=rollout.at, last_slot=last_slot))


def acknowledge(rollout: RolloutDriver, by: Actor = BO):
    """Acknowledge all open incidents about the clock."""
    for incident in [i for i in rollout.scope.open_incidents.values() if i.kind == "clock"]:
        rollout.do(AcknowledgeIncident(at=rollout.at, by=by, incident=incident.id))


def set_right(rollout: RolloutDriver):
    """Let the incident be opened and acknowledged, and the next tick check the clock."""
    check(rollout)
    acknowledge(rollout.after(MINUTE))
    return check(rollout)


def test_who_acknowledges_the_incident_sets_the_time_back_to_the_clocks():
    rollout = ahead(10 * DAY)
    was = rollout.scope.at
    events = set_right(rollout)
    assert events[-1] == ClockCorrected(at=rollout.at, by="policy", previous_time=was)
    assert rollout.scope.at == rollout.at == was - 10 * DAY + MINUTE
    assert rollout.stage() == "supervised"
    assert rollout.scope.proposals == {}
    assert check(rollout) == ()


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


def test_the_incident_says_what_is_wrong_and_what_to_do_once():
    rollout = ahead(10 * DAY)
    latest = rollout.scope.at
    (opened,) = check(rollout)
    assert (opened.kind, opened.about) == ("clock", latest.isoformat())
    assert opened.cause_text == (
        f"the clock shows {rollout.at.isoformat()}, but the last entry or tick is of"
        f" {latest.isoformat()}; if the clock is right acknowledge this, else set it right first"
    )
    assert check(rollout.after(MINUTE)) == ()
    assert rollout.tick({CREEK: MET}) == ()


def test_a_tick_ahead_that_wrote_nothing_is_corrected_too():
    rollout = supervised()
    latest = rollout.at + 10 * DAY
    (opened,) = check(rollout, latest)
    assert opened.at == rollout.at
    acknowledge(rollout)
    (corrected,) = check(rollout, latest)
    assert corrected.previous_time == latest
    assert rollout.stage() == "supervised"


def test_an_acknowledgement_is_of_one_jump():
    rollout = ahead(10 * DAY)
    check(rollout)
    acknowledge(rollout)
    rollout.do(Tick(at=rollout.at + 20 * DAY, evidence={(CREEK, "v1"): MET}))
    (again,) = check(rollout)
    assert again.kind == "clock"


def test_keys_acknowledge_nothing():
    rollout = ahead(DAY)
    check(rollout)
    with pytest.raises(UserRequiredError):
        acknowledge(rollout, BOT)


@pytest.mark.parametrize("by", [timedelta(), MINUTE])
def test_a_clock_that_is_right_needs_no_correction(by):
    assert check(ahead(by)) == ()


def test_a_clock_that_caught_up_corrects_nothing():
    rollout = ahead(HOUR)
    check(rollout)
    acknowledge(rollout)
    rollout.after(2 * HOUR)
    assert check(rollout) == ()


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
    assert kinds(set_right(rollout)) == ["ProposalVoided", "ClockCorrected"]
    assert kinds(rollout.tick({LAKE: MET})) == ["ProposalRaised"]


def test_after_it_minimums_count_from_then_and_not_from_the_time_that_never_was():
    rollout = ahead(91 * DAY)
    set_right(rollout)
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert state.changed_at <= rollout.at
    assert state.attempt_since <= rollout.at


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
