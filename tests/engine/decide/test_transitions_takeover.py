"""A challenger takes the acting version's place in a cell (model.md §2)."""

from dataclasses import replace

import pytest

from rollout.engine.decide.commands import AddVersion, ProposeTakeover, RejectProposal
from rollout.engine.events import TakenOver
from rollout.kernel.errors import NotEligibleError, UnknownVersionError, UserRequiredError
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.policy import Limit, Minimum, Waves
from rollout.kernel.populations import BothArms
from rollout.kernel.units import PROPOSES, OutcomeRule
from tests.factories import (
    BETWEEN,
    BO,
    BOT,
    CHANGE,
    CREEK,
    CY,
    DAN,
    DAY,
    HEARTBEAT,
    HOUR,
    LAKE,
    MET,
    NOTHING,
    QUALITY,
    SUPERVISED,
    TURNED,
    Actor,
    RolloutDriver,
    alarm,
    autonomous,
    build_evidence,
    counted,
    gates,
    kinds,
    policy,
    supervised,
)


def pair(build=supervised, **changes) -> RolloutDriver:
    """Return a rollout in which v1 acts in CREEK and v2, seen later, is its challenger."""
    rollout = build(policy(**changes))
    rollout.at += HOUR
    return see(rollout, "v2")


def see(rollout: RolloutDriver, version: str) -> RolloutDriver:
    rollout.do(AddVersion(at=rollout.at, version=version))
    return rollout


def challenge(rollout: RolloutDriver, *people: Actor, version: str = "v2") -> None:
    """Let the tick raise the challenger's takeover, and people approve it."""
    rollout.tick(**{version: MET})
    rollout.approve(rollout.open("takeover"), *people)


def ask(rollout: RolloutDriver, to: str, version: str = "v2", by: Actor = BO, of=MET):
    evidence = {(CREEK, version): of}
    if version in rollout.scope.versions and not rollout.scope.has_begun(CREEK, version):
        rollout.begin(version)
    return rollout.do(
        ProposeTakeover(at=rollout.at, by=by, cell=CREEK, version=version, to=to, evidence=evidence)
    )


# By the tick


def test_a_challenger_that_meets_every_gate_is_proposed_for_the_same_stage():
    rollout = pair(autonomous)
    (raised,) = rollout.tick(v2=MET)
    assert (raised.kind, raised.to_stage, raised.version, raised.by) == (
        "takeover",
        "autonomous",
        "v2",
        "policy",
    )
    assert raised.needs == ("operator", "safety")
    assert rollout.stage() == "autonomous"


def test_an_applied_takeover_puts_the_old_version_in_shadow():
    rollout = pair(autonomous)
    old = rollout.scope.get_cell_state(CREEK, "v1").grants
    challenge(rollout, BO, CY)
    (taken,) = rollout.tick(v2=MET)
    assert isinstance(taken, TakenOver)
    assert (taken.replaced_version, taken.to_stage, taken.stages) == (
        "v1",
        "autonomous",
        ("supervised", "autonomous"),
    )
    assert taken.grant_ends == (rollout.at + 90 * DAY,) * 2
    assert (rollout.stage(), rollout.stage(version="v2")) == ("shadow", "autonomous")
    assert rollout.scope.get_holder(CREEK) == "v2"
    new = rollout.scope.get_cell_state(CREEK, "v2").grants
    assert [g.held_since for g in new] == [g.held_since for g in old]


def test_a_takeover_voids_what_the_old_version_had_proposed():
    rollout = pair()
    old = rollout.raised()
    challenge(rollout, BO, DAN)
    assert kinds(rollout.tick()) == ["TakenOver", "ProposalVoided"]
    assert old.id not in rollout.scope.proposals


def test_a_widening_of_the_acting_version_voids_the_challengers_proposal():
    rollout = pair()
    rollout.tick({CREEK: MET}, v2=MET)
    rollout.approve(rollout.open("widening"), BO, CY)
    assert kinds(rollout.tick()) == ["Widened", "ProposalVoided"]


@pytest.mark.parametrize("evidence", [BETWEEN, TURNED, NOTHING])
def test_a_challenger_is_weighed_on_its_own_evidence(evidence):
    assert pair().tick({}, "v1", v2=evidence) == ()


def test_a_challenger_meets_the_minimum_of_each_gate_on_its_way():
    steep = gates(supervised={"minimum": Minimum(units=5000)})
    rollout = pair(supervised, gates=gates())
    assert kinds(rollout.tick(v2=MET)) == ["ProposalRaised"]
    rollout = RolloutDriver(policy(gates=steep))
    rollout.tick({CREEK: build_evidence(counted(5000))})
    rollout.approve(rollout.open(), BO, DAN)
    rollout.tick()
    rollout.widen()
    see(rollout, "v2")
    assert rollout.tick(v2=MET) == ()
    with pytest.raises(NotEligibleError, match="may not take over"):
        ask(rollout, "autonomous")
    assert kinds(rollout.tick(v2=build_evidence(counted(5000)))) == ["ProposalRaised"]


def test_an_older_version_is_never_proposed_by_the_tick():
    rollout = pair()
    challenge(rollout, BO, DAN)
    rollout.tick()
    assert rollout.stage(version="v2") == "supervised"
    assert rollout.tick({CREEK: MET}, "v1") == ()


def test_of_two_versions_seen_at_once_the_later_name_challenges():
    rollout = supervised(policy(), "v1", "v2")
    assert kinds(rollout.tick(v2=MET)) == ["ProposalRaised"]
    rollout = RolloutDriver(policy(), "v1", "v2")
    rollout.widen(version="v2")
    assert rollout.tick({CREEK: MET}, "v1") == ()


def test_a_takeover_waits_for_no_wave_but_counts_as_settling():
    waves = Waves("supervised", hold=DAY, at_once=1, settle=2 * DAY)
    rollout = RolloutDriver(policy(waves=waves))
    rollout.widen()
    rollout.after(2 * DAY)
    rollout.widen(LAKE)
    rollout.narrow()  # the wave before no longer holds
    see(rollout, "v2").after(DAY)
    rollout.tick({LAKE: MET}, "v2")
    rollout.approve(rollout.open("takeover"), BO, DAN)
    assert rollout.stage(LAKE) == "supervised"
    assert rollout.tick() == ()
    rollout.after(DAY)
    assert kinds(rollout.tick()) == ["TakenOver"]
    assert rollout.scope.widened_at[LAKE] == rollout.at


@pytest.mark.parametrize("way", ["narrow", "alarm", "lapse"])
def test_a_challenger_takes_no_place_that_is_gone(way):
    rollout = pair()
    challenge(rollout, BO, DAN)
    match way:
        case "narrow":
            rollout.narrow()
        case "alarm":
            rollout.tick({CREEK: alarm(QUALITY)})
        case "lapse":
            rollout.after(90 * DAY)
    rollout.tick(v2=BETWEEN)
    assert rollout.stage(version="v2") == "shadow"
    assert not rollout.scope.proposals


def test_nobody_takes_over_from_a_version_that_is_suspended():
    rollout = pair()
    challenge(rollout, BO, DAN)
    assert kinds(rollout.tick({CREEK: alarm(HEARTBEAT)})) == ["Suspended", "IncidentOpened"]
    assert rollout.tick(v2=MET) == ()


def test_a_new_grant_of_a_takeover_stands_on_no_alarm_of_the_old_version():
    rollout = pair()
    challenge(rollout, BO, DAN)
    rollout.tick()
    state = rollout.scope.get_cell_state(CREEK, "v2")
    assert (state.changed_at, state.attempt, state.suspended_by) == (rollout.at, 1, frozenset())


# By an operator


def test_an_operator_raises_one_to_a_lower_stage_as_far_as_the_policy_allows():
    rollout = pair(autonomous, takeover="supervised")
    (raised,) = ask(rollout, "supervised")
    assert (raised.by, raised.needs) == ("bo", ("operator", "operator"))
    rollout.approve(raised, DAN, Actor("eve"))
    (taken,) = rollout.tick()
    assert (taken.to_stage, taken.stages) == ("supervised", ("supervised",))
    assert (rollout.stage(), rollout.stage(version="v2")) == ("shadow", "supervised")


def test_an_operator_brings_an_older_version_back():
    rollout = pair()
    challenge(rollout, BO, DAN)
    rollout.tick()
    (raised,) = ask(rollout, "supervised", "v1")
    assert raised.version == "v1"


@pytest.mark.parametrize("to", ["supervised", "shadow", "moon"])
def test_same_stage_allows_no_lower_one(to):
    with pytest.raises(NotEligibleError, match=f"may go to autonomous, not to {to}"):
        ask(pair(autonomous), to)


def test_no_takeover_goes_above_the_acting_version():
    with pytest.raises(NotEligibleError, match="may go to supervised"):
        ask(pair(), "autonomous")


def test_no_takeover_goes_above_the_ceiling():
    rollout = pair(autonomous, takeover="supervised")
    rollout.edit(policy(takeover="supervised", limits=(Limit(never_above="supervised"),)))
    with pytest.raises(NotEligibleError, match="may go to supervised, not to autonomous"):
        ask(rollout, "autonomous")


def test_a_takeover_that_is_asked_for_needs_its_evidence():
    with pytest.raises(NotEligibleError, match="does not reach the gate's thresholds"):
        ask(pair(), "supervised", of=BETWEEN)
    with pytest.raises(NotEligibleError, match="99 of 100 decided units"):
        ask(pair(), "supervised", of=build_evidence(counted(99)))


def test_a_takeover_that_asks_for_a_gain_says_that_a_challenger_has_none():
    rollout = pair()
    profit = OutcomeRule("profit", -20, 60, 2 * DAY, "EUR", missing_at_most=0.05)
    gain = Condition(MEASURES["gain"], 0.0, population=BothArms(profit, PROPOSES))
    of_gain = [replace(gate, require=(*gate.require, gain)) for gate in rollout.policy.gates]
    rollout.policy = replace(rollout.policy, gates=tuple(of_gain))
    with pytest.raises(NotEligibleError, match=r"only where it acts, once.*propose a lower stage"):
        ask(rollout, "supervised")


def test_where_no_other_version_acts_there_is_nothing_to_take():
    rollout = see(RolloutDriver(), "v2")
    with pytest.raises(NotEligibleError, match="no other version acts"):
        ask(rollout, "supervised")
    with pytest.raises(NotEligibleError, match="no other version acts"):
        ask(pair(), "supervised", "v1")


def test_a_version_that_is_unknown_or_retired_takes_nothing():
    rollout = pair()
    with pytest.raises(UnknownVersionError, match="v9"):
        ask(rollout, "supervised", "v9")
    rollout.retire("v2")
    with pytest.raises(NotEligibleError, match="retired"):
        ask(rollout, "supervised")


def test_keys_raise_no_takeover():
    with pytest.raises(UserRequiredError):
        ask(pair(), "supervised", by=BOT)


def test_a_takeover_asked_for_again_is_the_one_that_is_open_and_another_waits():
    rollout = pair(autonomous, takeover="supervised")
    ask(rollout, "supervised")
    assert ask(rollout, "supervised", by=DAN) == ()
    with pytest.raises(NotEligibleError, match="is open there; approve or reject it"):
        ask(rollout, "autonomous")


@pytest.mark.parametrize(
    ("how", "says"),
    [("rejection", "quiet time"), ("stop", "is stopped"), ("report", "guard is in alarm")],
)
def test_a_takeover_asked_for_waits_for_what_the_ticks_would_wait_for(how, says):
    rollout = pair()
    match how:
        case "rejection":
            rollout.tick(v2=MET)
            rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=rollout.open("takeover").id))
        case "stop":
            rollout.stop()
        case "report":
            rollout.tick({CREEK: alarm(CHANGE)})
    with pytest.raises(NotEligibleError, match=says):
        ask(rollout, "supervised")
    if how == "rejection":
        rollout.after(rollout.policy.after_rejection)
        assert kinds(ask(rollout, "supervised")) == ["ProposalRaised"]


def test_a_stricter_takeover_rule_voids_one_that_it_would_not_allow():
    loose = policy(takeover="supervised")
    rollout = autonomous(loose)
    see(rollout, "v2")
    rollout.approve(ask(rollout, "supervised")[0], DAN, Actor("eve"))
    assert "PolicyApplied" in kinds(rollout.edit(replace(loose, takeover="same-stage", hash="x")))
    assert "ProposalVoided" in kinds(rollout.tick(v2=BETWEEN))
    assert rollout.stage() == "autonomous"


def test_the_acting_version_keeps_its_attempt_when_it_is_replaced():
    rollout = pair(stages=(SUPERVISED, policy().stages[1]))
    challenge(rollout, BO, DAN)
    rollout.tick()
    assert rollout.scope.get_cell_state(CREEK, "v1").attempt == 1


def test_without_its_gate_a_stage_is_taken_over_by_nobody_and_the_tick_goes_on():
    rollout = pair()
    rollout.edit(policy(gates=gates()[1:]))
    assert rollout.tick(v2=MET) == ()
    with pytest.raises(NotEligibleError, match="no gate to supervised for creek"):
        ask(rollout, "supervised")
    assert kinds(rollout.tick({CREEK: alarm(QUALITY)}, v2=MET)) == ["Narrowed", "IncidentOpened"]
