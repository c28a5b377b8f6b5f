"""The way up: gate met, evidence turned, approve, reject, expire, apply, renew (model.md §2)."""

from dataclasses import replace
from datetime import date

import pytest

from rollout.engine.decide.commands import Actor, ApproveProposal, RejectProposal
from rollout.engine.decide.proposals import list_proposal_holds
from rollout.engine.events import ProposalVoided, Renewed, Widened
from rollout.kernel.calendar.instants import Cell, Site
from rollout.kernel.errors import (
    AlreadyApprovedError,
    EvidenceChangedError,
    NotEligibleError,
    OwnProposalError,
    ProposalClosedError,
    UnknownProposalError,
    UserRequiredError,
)
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.policy import Freeze, Limit, Minimum, Waves, Where
from rollout.kernel.words import say_reading
from tests.factories import (
    ANA,
    BETWEEN,
    BO,
    BOT,
    CHANGE,
    CREEK,
    CREEK_NIGHT,
    CY,
    DAN,
    DAY,
    HEARTBEAT,
    HOUR,
    LAKE,
    LAKE_NIGHT,
    MET,
    NOTHING,
    QUALITY,
    TICK,
    TO_AUTONOMOUS,
    TURNED,
    RolloutDriver,
    alarm,
    autonomous,
    build_evidence,
    counted,
    gates,
    good,
    kinds,
    policy,
    supervised,
)

# Gate met


def test_a_met_gate_raises_one_proposal_for_the_next_rung():
    rollout = RolloutDriver()
    (raised,) = rollout.tick({CREEK: MET})
    assert (raised.kind, raised.to_stage, raised.needs) == (
        "widening",
        "supervised",
        ("operator", "operator"),
    )
    assert rollout.tick({CREEK: MET}) == ()
    assert rollout.stage() == "shadow"


def test_what_a_proposal_rests_on_is_frozen_under_its_hash():
    (first,) = RolloutDriver().tick({CREEK: MET})
    (same,) = RolloutDriver().tick({CREEK: MET})
    (other,) = RolloutDriver().tick({CREEK: build_evidence(counted(2001))})
    assert first.evidence_hash == same.evidence_hash != other.evidence_hash
    assert say_reading(first.readings[0]).startswith(
        "agreement at least 95 %: 2,000 of 2,000, log E 100."
    )


@pytest.mark.parametrize("evidence", [BETWEEN, TURNED, NOTHING])
def test_a_gate_that_is_not_met_raises_nothing(evidence):
    assert RolloutDriver().tick({CREEK: evidence}) == ()


@pytest.mark.parametrize(
    "seen",
    [
        counted(99),
        counted(2000, days=6),
        replace(counted(2000), reviewers=0),
        counted(2000, missing=106),
    ],
    ids=["units", "days", "reviewers", "missing"],
)
def test_evidence_alone_opens_no_gate_whose_minimum_fails(seen):
    assert RolloutDriver().tick({CREEK: build_evidence(seen)}) == ()


def test_the_minimum_is_counted_since_the_cell_entered_its_stage():
    rollout = supervised()
    assert rollout.tick({CREEK: build_evidence(counted(2000), entered=counted(99))}) == ()
    assert kinds(rollout.tick({CREEK: build_evidence(counted(2000), entered=counted(100))})) == [
        "ProposalRaised"
    ]


def test_a_higher_gate_asks_for_what_the_gates_below_ask_for():
    lower = gates(supervised={"minimum": Minimum(units=1)}, require=(QUALITY.condition,))
    rollout = supervised(policy(gates=lower))
    (raised,) = rollout.tick({CREEK: MET})
    assert [str(r.parse_condition()) for r in raised.readings] == [
        "agreement at least 93 %",
        "agreement at least 95 %",
    ]


def test_a_suspending_guard_in_alarm_raises_nothing_in_its_cell():
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    assert rollout.tick({CREEK: alarm(HEARTBEAT), LAKE: MET})[0].cell == LAKE


def test_a_guard_that_is_only_reported_holds_the_gate_while_in_alarm():
    rollout = supervised()
    assert kinds(rollout.tick({CREEK: alarm(CHANGE)})) == ["IncidentOpened"]
    assert rollout.tick({CREEK: alarm(CHANGE)}) == ()
    assert kinds(rollout.tick({CREEK: MET})) == ["SuspensionCleared", "ProposalRaised"]


def test_a_stopped_cell_raises_nothing():
    rollout = RolloutDriver()
    rollout.stop()
    assert rollout.tick({CREEK: MET}) == ()


@pytest.mark.parametrize("limit", [Limit(never_above="shadow"), Limit(ends=date(2027, 5, 31))])
def test_nothing_is_raised_above_the_ceiling(limit):
    assert RolloutDriver(policy(limits=(limit,))).tick({CREEK: MET}) == ()


def test_a_rung_without_a_gate_is_never_entered():
    rollout = supervised(policy(gates=gates()[:1]))
    assert rollout.tick({CREEK: MET}) == ()


def test_a_later_wave_raises_nothing_before_its_turn():
    rollout = RolloutDriver(policy(waves=Waves("supervised", hold=DAY)))
    assert [e.cell for e in rollout.tick({CREEK: MET, LAKE: MET})] == [CREEK]


def test_a_freeze_delays_applying_but_not_raising():
    rollout = RolloutDriver(policy(freezes=(Freeze("Jun 01-03", "fair"),)))
    rollout.approved()
    assert rollout.tick({CREEK: MET}) == ()
    rollout.after(3 * DAY)
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


def test_an_unknown_cell_or_version_raises_nothing():
    rollout = RolloutDriver()
    assert rollout.tick({replace(CREEK, site="moon"): MET}) == ()
    assert rollout.tick({CREEK: MET}, "never-seen") == ()


def test_a_cell_that_was_widened_in_this_tick_waits_for_the_next():
    rollout = RolloutDriver()
    rollout.approved()
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


# Evidence turned


@pytest.mark.parametrize(
    "evidence",
    [
        TURNED,
        NOTHING,
        build_evidence(counted(2000, missing=106)),
        build_evidence(counted(2000), entered=counted(99)),
    ],
    ids=["below its line", "gone", "missing rule", "minimum"],
)
@pytest.mark.parametrize("approved", [False, True])
def test_turned_evidence_voids_the_proposal(evidence, approved):
    rollout = RolloutDriver()
    if approved:
        rollout.approved()
    else:
        rollout.raised()
    assert kinds(rollout.tick({CREEK: evidence})) == ["ProposalVoided"]
    assert rollout.stage() == "shadow"


def test_evidence_above_its_line_keeps_a_proposal_that_it_would_not_raise():
    rollout = RolloutDriver()
    rollout.approved()
    assert kinds(rollout.tick({CREEK: BETWEEN})) == ["Widened"]


def test_a_cell_left_out_of_the_tick_has_not_turned():
    rollout = RolloutDriver()
    rollout.approved()
    assert kinds(rollout.tick()) == ["Widened"]


# Approve


def test_two_different_people_approve_and_the_next_tick_widens():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.approve(proposal, BO)
    assert rollout.tick({CREEK: MET}) == ()
    rollout.approve(proposal, DAN)
    (widened,) = rollout.tick({CREEK: MET})
    until = rollout.at + 90 * DAY
    assert widened == Widened(
        at=rollout.at,
        by="policy",
        cell=CREEK,
        version="v1",
        to_stage="supervised",
        until=until,
        proposal=proposal.id,
    )
    assert rollout.stage() == "supervised"


def test_one_person_counts_once_and_may_say_it_again():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.approve(proposal, BO)
    for _ in range(2):
        again = ApproveProposal(
            at=rollout.at, by=BO, proposal=proposal.id, evidence_hash=proposal.evidence_hash
        )
        assert rollout.do(again) == ()
    assert not rollout.scope.proposals[proposal.id].is_approved
    with pytest.raises(EvidenceChangedError):
        rollout.do(replace(again, evidence_hash="other"))


def test_a_yes_said_again_is_answered_though_the_proposal_has_expired_since():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.approve(proposal, BO)
    rollout.at = proposal.expires_at
    rollout.approve(proposal, BO)
    with pytest.raises(ProposalClosedError):
        rollout.approve(proposal, DAN)


def test_two_keys_or_roles_of_one_person_are_one_approver():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, Actor("eve", ("operator",)))
    with pytest.raises(AlreadyApprovedError, match="as operator; another user has to"):
        rollout.approve(proposal, Actor("eve", ("safety",)))
    rollout.approve(proposal, Actor("eve", ("finance",)))  # it would fill nothing: said again
    assert len(rollout.scope.proposals[proposal.id].approvals) == 1


def test_a_key_never_approves():
    rollout = RolloutDriver()
    with pytest.raises(UserRequiredError, match="only users"):
        rollout.approve(rollout.raised(), BOT)


def test_somebody_in_no_group_that_is_asked_is_not_eligible():
    rollout = RolloutDriver()
    with pytest.raises(NotEligibleError, match="operator, operator"):
        rollout.approve(rollout.raised(), CY)


def test_a_group_that_has_said_yes_is_not_asked_again():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, CY)
    with pytest.raises(NotEligibleError):
        rollout.approve(proposal, Actor("flo", ("safety",)))
    rollout.approve(proposal, BO)
    assert rollout.scope.proposals[proposal.id].is_approved


def test_a_third_approver_reads_that_nothing_is_missing_any_more():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, CY, BO)
    for third in (Actor("flo", ("operator",)), Actor("gil", ("finance",))):
        with pytest.raises(NotEligibleError, match="has all its approvals, of cy and bo: it needs"):
            rollout.approve(proposal, third)
    rollout.at = proposal.expires_at
    with pytest.raises(ProposalClosedError, match="has expired"):
        rollout.approve(proposal, Actor("flo", ("operator",)))


def test_who_is_in_a_group_that_has_approved_reads_which_is_missing():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, CY)
    text = "still needs operator, and flo is in no group that it lacks; cy has approved it as safe"
    with pytest.raises(NotEligibleError, match=text):
        rollout.approve(proposal, Actor("flo", ("safety",)))


def test_a_person_in_two_groups_stands_in_for_the_one_still_missing():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, Actor("eve", ("operator", "safety")), CY)
    assert rollout.scope.proposals[proposal.id].is_approved


def test_a_person_in_two_groups_does_not_fill_both():
    rollout = supervised()
    proposal = rollout.raised()
    rollout.approve(proposal, Actor("eve", ("operator", "safety")))
    assert not rollout.scope.proposals[proposal.id].is_approved


def test_nobody_approves_what_they_raised():
    rollout = supervised()
    rollout.stop()
    rollout.ask_resume(by=BO)
    with pytest.raises(OwnProposalError, match="ask another user"):
        rollout.approve(rollout.open("resume"), BO)


def test_an_approval_cites_the_evidence_that_was_shown():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    with pytest.raises(EvidenceChangedError, match="read it again"):
        rollout.do(
            ApproveProposal(at=rollout.at, by=BO, proposal=proposal.id, evidence_hash="other")
        )


def test_an_approval_of_nothing_known_is_refused_by_name():
    rollout = RolloutDriver()
    with pytest.raises(UnknownProposalError, match="open ones: none"):
        rollout.do(ApproveProposal(at=rollout.at, by=BO, proposal="P-1", evidence_hash=""))


@pytest.mark.parametrize("end", ["applied", "rejected", "voided", "expired"])
def test_a_closed_proposal_takes_no_approval(end):
    rollout = RolloutDriver()
    proposal = rollout.approved()
    match end:
        case "rejected":
            rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=proposal.id))
        case "expired":
            rollout.after(15 * DAY).tick({CREEK: BETWEEN})
        case _:
            rollout.tick({CREEK: MET if end == "applied" else TURNED})
    with pytest.raises(ProposalClosedError):
        rollout.do(
            ApproveProposal(
                at=rollout.at, by=ANA, proposal=proposal.id, evidence_hash=proposal.evidence_hash
            )
        )


# Reject and expire


def test_a_rejected_proposal_is_quiet_for_a_week():
    rollout = RolloutDriver()
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=rollout.raised().id))
    rejected_at = rollout.at
    rollout.after(7 * DAY - 2 * TICK)
    assert rollout.tick({CREEK: MET}) == ()
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalRaised"]
    assert rollout.at == rejected_at + 7 * DAY


def test_a_no_takes_an_approved_proposal_back():
    rollout = RolloutDriver()
    rollout.do(RejectProposal(at=rollout.at, by=CY, proposal=rollout.approved().id))
    assert rollout.tick({CREEK: MET}) == ()


def test_repeating_a_no_answers_what_holds():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    no = RejectProposal(at=rollout.at, by=BO, proposal=proposal.id)
    assert kinds(rollout.do(no)) == ["ProposalRejected"]
    assert rollout.do(no) == ()


@pytest.mark.parametrize("name", ["P-2", "P-0", "nonsense", "P-"])
def test_a_no_to_something_never_raised_is_unknown(name):
    rollout = RolloutDriver()
    rollout.raised()
    with pytest.raises(UnknownProposalError):
        rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=name))


def test_a_key_may_say_no():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    assert kinds(rollout.do(RejectProposal(at=rollout.at, by=BOT, proposal=proposal.id))) == [
        "ProposalRejected"
    ]


@pytest.mark.parametrize("approved", [False, True])
def test_an_expired_proposal_is_never_applied_and_may_be_raised_again(approved):
    rollout = RolloutDriver()
    proposal = rollout.approved() if approved else rollout.raised()
    rollout.at = proposal.expires_at - TICK
    assert kinds(rollout.tick({CREEK: MET})) == ["ProposalExpired", "ProposalRaised"]
    assert rollout.stage() == "shadow"


def test_an_approval_after_the_expiry_is_refused_without_any_tick():
    rollout = RolloutDriver()
    proposal = rollout.raised()
    rollout.at = proposal.expires_at
    with pytest.raises(ProposalClosedError, match="has expired"):
        rollout.approve(proposal, BO)


# Apply


def test_a_cell_climbs_rung_by_rung():
    rollout = autonomous()
    assert [e.to_stage for e in rollout.events if isinstance(e, Widened)] == [
        "supervised",
        "autonomous",
    ]
    assert rollout.stage() == "autonomous"


@pytest.mark.parametrize("guard", [HEARTBEAT, CHANGE], ids=["suspends", "reports"])
def test_nothing_is_applied_while_a_guard_is_in_alarm(guard):
    rollout = supervised()
    rollout.approved()
    assert "Widened" not in kinds(rollout.tick({CREEK: alarm(guard)}))
    assert "Widened" not in kinds(rollout.tick({CREEK: alarm(guard)}))
    clear = good(rollout.at - 3 * HOUR, guard)
    assert kinds(rollout.tick({CREEK: clear})) == ["SuspensionCleared", "Widened"]


def test_an_alarm_that_narrows_voids_what_stood_on_the_grant():
    rollout = supervised()
    rollout.approved()
    assert kinds(rollout.tick({CREEK: alarm(QUALITY)})) == [
        "ProposalVoided",
        "Narrowed",
        "IncidentOpened",
    ]


def test_a_stopped_cell_keeps_its_proposal_and_applies_nothing():
    rollout = supervised()
    proposal = rollout.approved()
    rollout.stop()
    assert rollout.tick({CREEK: MET}) == ()
    assert proposal.id in rollout.scope.proposals


@pytest.mark.parametrize(
    "edit",
    [
        {"limits": (Limit(never_above="shadow"),)},
        {"gates": gates(supervised={"minimum": Minimum(units=101)})},
        {"gates": gates(supervised={"approvals": ("operator", "operator", "safety")})},
        {"gates": gates(supervised={"where": Where(sites=("lake",))})},
    ],
    ids=["ceiling", "minimum", "approvals", "no gate"],
)
def test_a_stricter_rule_takes_the_ground_from_an_approved_proposal(edit):
    rollout = RolloutDriver()
    rollout.approved()
    assert "PolicyApplied" in kinds(rollout.edit(policy(**edit)))
    rollout.tick({CREEK: BETWEEN})
    assert rollout.stage() == "shadow"
    assert any(isinstance(e, ProposalVoided) for e in rollout.events)


def test_a_stricter_rule_elsewhere_leaves_an_approved_proposal_alone():
    rollout = RolloutDriver()
    rollout.approved()
    rollout.edit(policy(gates=gates(require=(replace(TO_AUTONOMOUS.require[0], threshold=0.98),))))
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


def test_observing_raises_and_applies_nothing():
    rollout = RolloutDriver(policy(observe=True))
    rollout.approved()
    assert rollout.tick({CREEK: MET}) == ()


def test_an_edit_to_observing_leaves_grants_and_applies_nothing_from_then_on():
    rollout = supervised(policy(), "v1", "v2")
    rollout.stop(LAKE)
    rollout.stop(CREEK_NIGHT)
    rollout.edit(policy(observe=True))
    assert rollout.policy.observe
    for cell in (CREEK, LAKE_NIGHT):
        rollout.approved(cell)
    rollout.after(80 * DAY)  # in the last fifth of the grant
    rollout.tick({CREEK: build_evidence(counted(2000))})
    rollout.approve(rollout.open("renewal"), BO, DAN)
    rollout.stop()
    rollout.ask_resume(list(rollout.scope.stops)[-1])
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    assert rollout.tick({CREEK: MET}) == ()
    assert len(rollout.scope.stops) == 3


def test_a_stop_rehearsed_while_observing_can_be_ended():
    rollout = RolloutDriver(policy(observe=True))
    rollout.stop(drill=True)
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, Actor("eve"))
    assert kinds(rollout.tick()) == ["Resumed"]


def test_at_most_so_many_cells_are_widened_within_the_time_to_settle():
    rollout = RolloutDriver(policy(waves=Waves("supervised", at_once=2, settle=3 * DAY)))
    for cell in (CREEK, CREEK_NIGHT):
        rollout.approved(cell)
    rollout.tick()
    rollout.widen()
    assert rollout.stage() == "supervised"
    rollout.after(3 * DAY)
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


def test_a_cell_waits_until_the_first_of_those_that_settle_has_settled():
    waves = Waves("supervised", at_once=2, settle=3 * DAY)
    rollout = RolloutDriver(policy(waves=waves))
    settled = rollout.widen()[0].at + 3 * DAY
    rollout.after(DAY).widen(CREEK_NIGHT)
    proposal = rollout.approved()
    (hold,) = list_proposal_holds(rollout.scope, rollout.policy, proposal, rollout.at)
    assert (hold.kind, hold.until) == ("settling", settled)


def test_earlier_waves_are_applied_first():
    rollout = RolloutDriver(policy(waves=Waves("supervised", hold=0 * DAY, at_once=1, settle=HOUR)))
    for cell in (CREEK, LAKE):
        rollout.widen(cell)
        rollout.after(HOUR)
    later, earlier = rollout.raised(LAKE), rollout.raised(CREEK)
    for proposal in (later, earlier):
        rollout.approve(proposal, BO, CY)
    assert [e.cell for e in rollout.tick()] == [CREEK]


def test_of_one_wave_the_one_raised_first_is_applied_first():
    sites = tuple(Site(f"s{n}", "UTC") for n in range(12))
    waves = Waves("supervised", at_once=9, settle=DAY)
    rollout = RolloutDriver(policy(sites=sites, waves=waves))
    cells = [Cell(site.id, "day") for site in sites]
    rollout.tick(dict.fromkeys(cells, MET))
    for proposal in list(rollout.scope.proposals):
        rollout.approve(proposal, BO, DAN)
    assert [e.cell for e in rollout.tick()] == cells[:9]


# Renewal


def due(rollout: RolloutDriver) -> RolloutDriver:
    """Bring the clock into the last fifth of the grants."""
    return rollout.after(73 * DAY)


def test_a_renewal_is_due_in_the_last_fifth_of_a_grant():
    rollout = supervised(policy(gates=gates()[:1]))
    since = rollout.at
    rollout.after(72 * DAY - 2 * TICK)
    assert rollout.tick({CREEK: MET}) == ()
    (raised,) = rollout.tick({CREEK: MET})
    assert (raised.kind, raised.to_stage, rollout.at) == ("renewal", "supervised", since + 72 * DAY)


def test_an_approved_renewal_prolongs_the_grant_from_when_it_is_applied():
    rollout = due(supervised(policy(gates=gates()[:1])))
    rollout.approved()
    (renewed,) = rollout.tick({CREEK: MET})
    assert isinstance(renewed, Renewed)
    assert renewed.until == rollout.at + 90 * DAY
    (grant,) = rollout.scope.get_cell_state(CREEK, "v1").grants
    assert (grant.since, grant.until) == (rollout.at, renewed.until)
    assert grant.held_since < grant.since


@pytest.mark.parametrize(
    ("span", "raised"),
    [
        (counted(100, 2), True),
        (replace(counted(100), days=1), True),
        (counted(99), False),
        (replace(counted(200), reviewers=0), False),
        (counted(90, 10), False),
        (EvidenceCounts(), False),
    ],
    ids=["E at least 1", "days don't count", "units", "people", "E below 1", "nothing"],
)
def test_a_renewal_asks_for_units_people_and_e_of_one_within_the_grant(span, raised):
    rollout = due(supervised(policy(gates=gates()[:1])))
    events = rollout.tick({CREEK: build_evidence(counted(5000), span=span)})
    assert kinds(events) == ["ProposalRaised"] * raised


def test_a_renewal_turns_with_the_evidence_of_its_span():
    rollout = due(supervised(policy(gates=gates()[:1])))
    rollout.approved()
    turned = build_evidence(counted(5000), span=counted(90, 10))
    assert kinds(rollout.tick({CREEK: turned})) == ["ProposalVoided"]


@pytest.mark.parametrize("guard", [HEARTBEAT, CHANGE])
def test_no_renewal_is_raised_while_a_guard_is_in_alarm(guard):
    rollout = due(supervised(policy(gates=gates()[:1])))
    assert "ProposalRaised" not in kinds(rollout.tick({CREEK: alarm(guard)}))


def test_the_lowest_grant_that_is_due_is_renewed_first():
    rollout = due(autonomous())
    assert rollout.raised().to == "supervised"
    rollout.approve(rollout.open(), BO, DAN)
    rollout.tick()
    assert rollout.raised().to == "autonomous"


def test_a_renewal_waits_for_no_wave_and_does_not_count_as_settling():
    waves = Waves("supervised", hold=DAY, at_once=1, settle=80 * DAY)
    rollout = due(supervised(policy(gates=gates()[:1], waves=waves)))
    rollout.approved()
    settled = rollout.scope.widened_at
    assert kinds(rollout.tick({CREEK: MET})) == ["Renewed"]
    assert rollout.scope.widened_at == settled


def test_a_widening_that_is_due_for_renewal_is_renewed_before_it_goes_on():
    rollout = due(supervised())
    assert rollout.raised().kind == "renewal"
