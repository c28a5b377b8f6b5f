"""Sequences that try to widen without right, or to slip past somebody's no."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from rollout.engine.decide.commands import (
    AcknowledgeIncident,
    Actor,
    AddVersion,
    ApplyPolicy,
    ApprovalLimits,
    ApproveProposal,
    NarrowCells,
    ProposeTakeover,
    RejectProposal,
    RetireVersion,
    StopCells,
    Tick,
)
from rollout.engine.decide.decider import decide
from rollout.engine.decide.scope import Scope
from rollout.engine.events import Narrowed, Widened
from rollout.kernel.errors import (
    NotAllowedError,
    NotEligibleError,
    OwnProposalError,
    PolicyRefusedError,
    ProposalClosedError,
)
from rollout.kernel.policy.policy import Limit, Minimum
from tests.factories import (
    AUTONOMOUS,
    BETWEEN,
    BO,
    CREEK,
    CY,
    DAN,
    DAY,
    GUARDS,
    HARM,
    HEARTBEAT,
    HOUR,
    LAKE,
    MET,
    NOTHING,
    QUALITY,
    SUPERVISED,
    TICK,
    UNAUDITED,
    RolloutDriver,
    alarm,
    autonomous,
    gates,
    good,
    kinds,
    policy,
    supervised,
)

EVE = Actor("eve", ("operator", "safety"))


def stages(rollout: RolloutDriver) -> list[str]:
    return [grant.stage for grant in rollout.scope.get_cell_state(CREEK, "v1").grants]


# Rungs


def test_a_rung_above_a_lapsed_one_does_not_come_back_when_the_lower_is_granted_anew():
    longer = (replace(SUPERVISED, lasts=30 * DAY), AUTONOMOUS)
    rollout = autonomous(policy(stages=longer))
    rollout.after(30 * DAY)
    assert rollout.stage() == "shadow"
    rollout.tick({CREEK: MET})  # notes the lapse, raises nothing on what it has changed
    rollout.widen()
    assert (rollout.stage(), stages(rollout)) == ("supervised", ["supervised"])


def test_no_tick_climbs_two_rungs_however_long_it_slept():
    rollout = RolloutDriver()
    rollout.approved()
    rollout.after(10 * DAY)
    for expected in (["Widened"], ["ProposalRaised"], []):
        assert kinds(rollout.tick({CREEK: MET})) == expected


def test_an_approval_for_one_rung_is_none_for_the_next():
    rollout = supervised()
    rollout.approve(rollout.raised(), BO, CY)
    rollout.tick({CREEK: MET})
    rollout.narrow("supervised")
    assert rollout.tick({CREEK: BETWEEN}) == ()
    assert rollout.stage() == "supervised"


def test_a_narrowed_cell_needs_new_people_for_the_same_rung():
    rollout = supervised()
    old = rollout.scope.get_cell_state(CREEK, "v1").grants[0].proposal
    rollout.narrow()
    again = rollout.raised()
    assert again.id != old
    assert again.approvals == ()


# The same tick


@pytest.mark.parametrize("guard", [QUALITY, UNAUDITED, HEARTBEAT, HARM], ids=str)
def test_a_renewal_is_not_applied_in_a_tick_with_an_alarm(guard):
    rollout = supervised(policy(gates=gates()[:1]))
    rollout.after(75 * DAY)
    rollout.approved()
    assert "Renewed" not in kinds(rollout.tick({CREEK: alarm(guard)}))


def test_a_takeover_waits_out_the_tick_in_which_the_acting_version_is_narrowed():
    rollout = autonomous(policy(takeover="supervised"))
    rollout.do(AddVersion(at=rollout.at, version="v2"))
    rollout.begin("v2")
    key = (CREEK, "v2")
    asked = ProposeTakeover(
        at=rollout.at, by=BO, cell=CREEK, version="v2", to="supervised", evidence={key: MET}
    )
    rollout.approve(rollout.do(asked)[0], DAN, EVE)
    assert kinds(rollout.tick({CREEK: alarm(QUALITY)}, v2=MET)) == ["Narrowed", "IncidentOpened"]
    assert kinds(rollout.tick(v2=MET)) == ["TakenOver"]


def test_an_alarm_that_reaches_a_cell_stops_what_was_approved_there():
    rollout = supervised()
    rollout.widen(LAKE)
    rollout.approved(LAKE)
    assert "Widened" not in kinds(rollout.tick({CREEK: alarm(HARM)}))
    assert rollout.stage(LAKE) == "shadow"


def test_nothing_is_raised_on_evidence_of_an_attempt_that_ended_in_this_tick():
    rollout = supervised()
    assert kinds(rollout.tick({CREEK: alarm(QUALITY, of=MET)})) == ["Narrowed", "IncidentOpened"]
    assert rollout.scope.get_cell_state(CREEK, "v1").attempt == 2


# Versions


def two() -> RolloutDriver:
    return RolloutDriver(policy(), "v1", "v2")


@pytest.mark.parametrize("first", ["v1", "v2"])
def test_of_two_versions_that_were_both_approved_one_gets_the_place(first):
    rollout = two()
    other = "v1" if first == "v2" else "v2"
    rollout.tick({CREEK: MET}, first)
    rollout.tick({CREEK: MET}, other)
    for proposal in list(rollout.scope.proposals):
        rollout.approve(proposal, BO, DAN)
    assert kinds(rollout.tick()) == ["Widened", "ProposalVoided"]
    assert rollout.scope.get_holder(CREEK) == first
    assert rollout.stage(version=other) == "shadow"


@pytest.mark.parametrize("when", ["raised", "approved"])
def test_a_version_that_is_retired_meanwhile_gets_nothing(when):
    rollout = RolloutDriver()
    proposal = rollout.approved() if when == "approved" else rollout.raised()
    rollout.retire()
    assert rollout.tick({CREEK: MET}) == ()
    with pytest.raises(ProposalClosedError):
        rollout.do(
            ApproveProposal(
                at=rollout.at, by=EVE, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
        )


def test_a_retired_version_does_not_come_back_by_being_seen_again():
    rollout = supervised()
    rollout.retire()
    assert rollout.do(AddVersion(at=rollout.at, version="v1")) == ()
    assert rollout.tick({CREEK: MET}) == ()
    assert rollout.stage() == "shadow"


def test_a_new_name_for_an_old_model_starts_in_shadow_at_the_whole_risk_and_is_counted():
    rollout = supervised()
    rollout.do(AddVersion(at=rollout.at, version="v1-again"))
    assert rollout.stage(version="v1-again") == "shadow"
    assert len(rollout.scope.versions) == 2


def test_more_than_twenty_open_versions_are_refused():
    rollout = RolloutDriver(policy(), *(f"v{n}" for n in range(20)))
    with pytest.raises(PolicyRefusedError, match="retire one before"):
        rollout.do(AddVersion(at=rollout.at, version="one-more"))
    rollout.retire("v0")
    assert kinds(rollout.do(AddVersion(at=rollout.at, version="one-more"))) == ["VersionFirstUsed"]


def test_two_good_versions_do_not_replace_each_other_for_ever():
    rollout = RolloutDriver(policy(gates=gates()[:1]))
    rollout.widen()
    rollout.do(AddVersion(at=rollout.at + HOUR, version="v2"))
    both = {(CREEK, "v1"): MET, (CREEK, "v2"): MET}
    for _ in range(6):
        rollout.after(HOUR).do(Tick(at=rollout.at, evidence=both))
        for proposal in list(rollout.scope.proposals):
            rollout.approve(proposal, BO, DAN)
    assert kinds(tuple(rollout.events)).count("TakenOver") == 1


# Stops, suspensions, resumes


def test_a_stop_pressed_after_a_resume_was_approved_is_not_swallowed():
    rollout = autonomous()
    rollout.stop()
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    assert kinds(rollout.stop()) == ["Stopped"]
    assert kinds(rollout.tick()) == ["Resumed"]
    assert rollout.stage() == "shadow"


def test_a_stop_that_is_meant_stands_beside_a_drill():
    rollout = autonomous()
    rollout.stop(drill=True)
    assert kinds(rollout.stop()) == ["Stopped"]
    assert rollout.stop() == rollout.stop(drill=True) == ()
    drill = next(stop.id for stop in rollout.scope.stops.values() if stop.drill)
    rollout.ask_resume(drill)
    rollout.approve(rollout.open("resume"), DAN, CY)
    rollout.tick()
    assert rollout.stage() == "shadow"


def test_a_resume_ends_no_suspension_and_a_clear_ends_no_stop():
    rollout = autonomous()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.stop()
    rollout.tick({CREEK: good(rollout.at - DAY, HEARTBEAT, of=NOTHING)})
    assert rollout.stage() == "shadow"
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    assert kinds(rollout.tick()) == ["Resumed"]
    assert rollout.stage() == "shadow"


def test_what_was_approved_before_a_stop_waits_for_the_resume_and_still_expires():
    rollout = supervised()
    proposal = rollout.approved()
    rollout.stop()
    rollout.at = proposal.expires_at
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, EVE)
    assert kinds(rollout.tick({CREEK: BETWEEN})) == ["ProposalExpired", "Resumed"]
    assert rollout.stage() == "supervised"


def test_a_trial_that_has_ended_grants_nothing_that_a_later_edit_could_bring_to_life():
    rollout = RolloutDriver(policy(limits=(Limit(ends=date(2027, 6, 1)),)))
    rollout.approved()
    rollout.after(DAY)
    assert kinds(rollout.tick({CREEK: BETWEEN})) == ["ProposalVoided"]
    assert stages(rollout) == []


def test_a_suspension_that_ends_after_the_grant_gives_nothing_back():
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.after(91 * DAY)
    rollout.tick({CREEK: good(rollout.at - DAY, HEARTBEAT, of=NOTHING)})
    assert rollout.stage() == "shadow"


def test_the_one_who_stopped_may_not_resume_alone():
    rollout = autonomous()
    rollout.stop(by=BO)
    rollout.ask_resume(by=BO)
    resume = rollout.open("resume")
    with pytest.raises(OwnProposalError):
        rollout.approve(resume, BO)
    rollout.approve(resume, EVE)
    rollout.tick()
    assert rollout.stage() == "shadow"


# Policies


def test_who_reset_the_password_of_another_adds_no_approval_to_what_that_one_did():
    rollout = supervised()
    rollout.stop(by=DAN)
    rollout.ask_resume(by=BO)
    (resume,) = rollout.scope.proposals.values()
    for partner in ("bo", "ann"):
        eve = Actor("eve", limits=ApprovalLimits(reset_partners=frozenset({partner})))
        with pytest.raises(NotEligibleError, match=f"eve and {partner} don't count together"):
            rollout.approve(resume, eve)
        rollout.approve(resume, Actor("ann"))
    assert [yes.by for yes in rollout.scope.proposals[resume.id].approvals] == ["ann"]


def test_who_has_a_new_password_approves_again_from_the_end_of_the_pause_on():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    limits = [ApprovalLimits(rollout.at + n * timedelta(microseconds=1)) for n in (1, 0)]
    with pytest.raises(NotEligibleError, match="their approvals count again"):
        rollout.approve(proposal, Actor("bo", limits=limits[0]))
    rollout.approve(proposal, Actor("bo", limits=limits[1]))
    assert rollout.scope.proposals[proposal.id].approvals


def test_approvals_that_were_given_before_an_edit_do_not_count_after_it():
    rollout = RolloutDriver()
    rollout.approve(rollout.raised(), BO)
    stricter = policy(gates=gates(supervised={"minimum": Minimum(units=200)}))
    rollout.edit(stricter)
    again = rollout.raised()
    assert again.approvals == ()
    rollout.approve(again, DAN)
    rollout.tick({CREEK: MET})
    assert rollout.stage() == "shadow"


def test_taking_a_gate_away_and_putting_it_back_keeps_no_approval():
    rollout = RolloutDriver()
    rollout.approved()
    assert kinds(rollout.edit(policy(gates=gates()[1:]))) == ["ProposalVoided", "PolicyApplied"]
    rollout.approve(rollout.edit(policy())[0], DAN, EVE)
    rollout.tick({CREEK: BETWEEN})
    rollout.tick({CREEK: BETWEEN})
    assert rollout.stage() == "shadow"


def test_a_ceiling_that_falls_and_rises_again_brings_no_approved_proposal_back():
    rollout = RolloutDriver()
    rollout.approved()
    rollout.edit(policy(limits=(Limit(never_above="shadow"),)))
    rollout.approve(rollout.edit(policy())[0], DAN, CY)
    rollout.tick({CREEK: BETWEEN})
    rollout.tick({CREEK: BETWEEN})
    assert rollout.stage() == "shadow"


def test_a_proposal_that_was_raised_under_another_gate_is_void_however_it_came_there():
    rollout = RolloutDriver()
    rollout.approved()
    rollout.policy = policy(gates=gates(supervised={"minimum": Minimum(units=101)}))
    assert kinds(rollout.tick({CREEK: BETWEEN})) == ["ProposalVoided"]


def test_the_author_of_an_edit_finds_no_second_proposal_of_it_to_approve():
    rollout = RolloutDriver()
    loose = policy(guards=GUARDS[1:])
    (mine,) = rollout.edit(loose, by=BO)
    assert rollout.edit(loose, by=EVE) == ()
    with pytest.raises(OwnProposalError):
        rollout.approve(mine, BO)


def test_an_edit_is_approved_by_the_gate_before_it_and_not_by_its_own():
    rollout = RolloutDriver()
    (raised,) = rollout.edit(policy(gates=gates(approvals=("operator",))))
    rollout.approve(raised, DAN)
    rollout.tick()
    assert rollout.policy == policy()


def test_an_attempt_never_falls_when_a_site_goes_and_comes_back():
    rollout = supervised()
    rollout.tick({CREEK: alarm(QUALITY)})
    rollout.edit(policy(sites=policy().sites[1:]))
    rollout.approve(rollout.edit(policy())[0], DAN, CY)
    rollout.tick()
    assert rollout.scope.get_cell_state(CREEK, "v1").attempt == 3


# People


def test_nobody_counts_for_two_groups():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, EVE)
    rollout.approve(proposal, EVE)
    assert not rollout.scope.proposals[proposal.id].is_approved
    with pytest.raises(NotEligibleError):
        rollout.approve(proposal, Actor("flo", ("finance",)))
    assert not rollout.scope.proposals[proposal.id].is_approved


NO_NAMES = ["policy", "Policy", " policy ", "", " ", "ana\n", "a\x00", "bo\u202eana", "b\u200bo"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_nobody_asks_anything_under_the_engines_name_or_one_that_does_not_print(name):
    rollout, by = supervised(), Actor(name)
    proposal = rollout.raised()
    asked = [
        ApproveProposal(
            at=rollout.at, by=by, proposal=proposal.id, evidence_hash=proposal.evidence_hash
        ),
        RejectProposal(at=rollout.at, by=by, proposal=proposal.id),
        NarrowCells(at=rollout.at, by=by, cells=(CREEK,), to="shadow"),
        StopCells(at=rollout.at, by=by, cells=(CREEK,)),
        ApplyPolicy(at=rollout.at, by=by, policy=policy(slices=("weather",))),
        RetireVersion(at=rollout.at, by=by, version="v1"),
        AcknowledgeIncident(at=rollout.at, by=by, incident="I-1"),
    ]
    for command in asked:
        with pytest.raises(NotAllowedError):
            rollout.do(command)
    assert rollout.stage() == "supervised"


# Clocks


def test_a_clock_set_back_revives_no_expired_proposal():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.at = proposal.expires_at
    rollout.raised(LAKE)  # an entry in the ledger after the expiry
    early = proposal.expires_at - DAY
    with pytest.raises(ProposalClosedError):
        rollout.do(
            ApproveProposal(
                at=early, by=BO, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
        )


def test_spans_are_counted_in_real_time_whatever_clock_asks():
    denver = ZoneInfo("America/Denver")
    spring = datetime(2027, 3, 13, 22, tzinfo=denver)  # clocks go forward that night
    rollout = RolloutDriver(at=spring)
    rollout.widen()
    (widened,) = [e for e in rollout.events if isinstance(e, Widened)]
    assert widened.until - widened.at == 90 * DAY
    assert widened.at.astimezone(UTC) + timedelta(days=90) == widened.until


def test_a_time_without_a_zone_is_no_instant():
    with pytest.raises(ValueError, match="no time zone"):
        decide(Tick(at=datetime(2027, 6, 1, 12)), Scope(), policy())  # noqa: DTZ001


def test_a_clock_far_ahead_lets_grants_end_and_nothing_begin():
    rollout = supervised()
    rollout.approved()
    rollout.after(400 * DAY)
    events = rollout.tick({CREEK: BETWEEN})
    assert not any(isinstance(e, Widened) for e in events)
    assert rollout.stage() == "shadow"
    rollout.at -= 400 * DAY
    assert rollout.stage() == "shadow"


def test_a_narrowing_behind_the_ledgers_clock_is_dated_by_the_ledger():
    rollout = autonomous()
    now = rollout.at
    rollout.at -= 30 * DAY
    (narrowed,) = rollout.narrow()
    assert isinstance(narrowed, Narrowed)
    assert narrowed.at == now
    assert rollout.stage(at=now + TICK) == "shadow"
