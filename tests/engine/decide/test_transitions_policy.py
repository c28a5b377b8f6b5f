"""Edits of the policy: stricter at once, looser by people, redefined from zero (model.md §2)."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pytest

from rollout.engine.decide import policy_changes
from rollout.engine.decide.commands import Actor, BeginNextAttempt, RejectProposal, Tick
from rollout.engine.decide.guards import foresee_attempt
from rollout.engine.events import Narrowed, PolicyApplied
from rollout.kernel.calendar.instants import Site, Window
from rollout.kernel.errors import (
    NotEligibleError,
    NotNarrowerError,
    OwnProposalError,
    PolicyRefusedError,
    UserRequiredError,
)
from rollout.kernel.facts import EDITED_LADDER, OTHER_TICK
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.policy.policy import (
    EvidenceRules,
    Freeze,
    Gate,
    Limit,
    Minimum,
    Policy,
    Stage,
    Where,
)
from rollout.kernel.populations import EachValue, PlantedUnits
from rollout.kernel.statistics.gate_thresholds import get_gate_threshold
from rollout.kernel.units import CostRule, Lever
from rollout.kernel.words import say_looser
from tests.factories import (
    AGREEMENT,
    ANA,
    AUTONOMOUS,
    BO,
    BOT,
    CREEK,
    CREEK_NIGHT,
    CY,
    DAN,
    DAY,
    GUARDS,
    HEARTBEAT,
    HOUR,
    LAKE,
    LATENCY,
    MET,
    NOON,
    NOTHING,
    SUPERVISED,
    RolloutDriver,
    alarm,
    autonomous,
    gates,
    good,
    kinds,
    narrow_only,
    policy,
    supervised,
)

COSMETIC = policy(slices=("weather",))
LOOSE_GATE = policy(gates=gates(supervised={"minimum": Minimum(units=50)}))


def test_the_first_policy_needs_nobody_else():
    rollout = RolloutDriver()
    (applied,) = [e for e in rollout.events if isinstance(e, PolicyApplied)]
    assert (applied.number, applied.by, applied.loosens) == (1, "ana", ())


def test_a_policy_that_holds_already_changes_nothing():
    assert RolloutDriver().edit(policy()) == ()


def test_a_key_edits_no_policy():
    with pytest.raises(UserRequiredError):
        RolloutDriver().edit(COSMETIC, by=BOT)


@pytest.mark.parametrize("tick", [timedelta(minutes=5), HOUR, DAY])
def test_no_edit_changes_the_slots_by_which_evidence_is_counted(tick):
    rollout = supervised()
    with pytest.raises(PolicyRefusedError, match="write tick: 15m, or start a rollout of another"):
        rollout.edit(policy(tick=tick))
    assert rollout.policy == policy()


def test_another_tick_that_was_approved_before_it_was_refused_is_void(monkeypatch):
    rollout = supervised()
    with monkeypatch.context() as earlier_program:
        earlier_program.setattr(policy_changes, "_find_kept_tick", lambda _old, _new: "")
        rollout.approve(rollout.edit(policy(tick=HOUR))[0], BO, CY)
    (voided,) = rollout.tick()
    assert (voided.cause, voided.about) == (OTHER_TICK, "15m")
    assert rollout.policy == policy()


# Cosmetic and stricter


def test_a_cosmetic_edit_applies_at_once_and_touches_nothing():
    rollout = supervised()
    proposal = rollout.approved()
    assert kinds(rollout.edit(COSMETIC)) == ["PolicyApplied"]
    assert proposal.id in rollout.scope.proposals
    assert (rollout.scope.policy_number, rollout.scope.policy_hash) == (2, COSMETIC.hash)
    assert kinds(rollout.tick({CREEK: MET})) == ["Widened"]


@pytest.mark.parametrize(
    "limit", [Limit(never_above="supervised"), Limit(ends=date(2027, 5, 1))], ids=["cap", "end"]
)
def test_a_lower_ceiling_cuts_at_once_and_the_grants_stay(limit):
    rollout = autonomous()
    assert kinds(rollout.edit(policy(limits=(limit,)))) == ["PolicyApplied"]
    assert rollout.stage() == ("supervised" if limit.ends is None else "shadow")
    assert len(rollout.scope.get_cell_state(CREEK, "v1").grants) == 2


def test_a_grant_above_the_ceiling_comes_back_by_approvals_alone_also_without_a_gate():
    rollout = autonomous()
    rollout.edit(policy(limits=(Limit(never_above="supervised", where=Where(("creek",))),)))
    elsewhere = replace(gates()[1], where=Where(sites=("lake",)))
    assert kinds(rollout.edit(policy(gates=(gates()[0], elsewhere)))) == ["ProposalRaised"]
    assert rollout.stage() == "supervised"


@pytest.mark.parametrize(
    "stricter",
    [
        policy(gates=gates(supervised={"require": (replace(AGREEMENT, threshold=0.96),)})),
        policy(evidence=EvidenceRules(missing_at_most=0.02)),
    ],
    ids=["line", "missing"],
)
def test_a_stricter_edit_voids_what_was_proposed_under_the_former_gate(stricter):
    rollout = RolloutDriver()
    rollout.approved()
    assert kinds(rollout.edit(stricter)) == ["ProposalVoided", "PolicyApplied"]


# Looser


@pytest.mark.parametrize(
    "looser",
    [
        LOOSE_GATE,
        policy(gates=gates(supervised={"require": (replace(AGREEMENT, threshold=0.94),)})),
        policy(gates=gates(supervised={"risk": 0.1})),
        policy(gates=gates(supervised={"approvals": ("operator",)})),
        policy(guards=GUARDS[1:]),
        policy(stages=(replace(SUPERVISED, blind=0.4), AUTONOMOUS)),
        policy(stages=(SUPERVISED, replace(AUTONOMOUS, audit=0.05))),
        policy(lease=HOUR),
    ],
    ids=["minimum", "line", "risk", "approvals", "guard", "blind", "audit", "lease"],
)
def test_a_looser_edit_waits_for_the_approvals_of_the_highest_gate_before(looser):
    rollout = supervised()
    (raised,) = rollout.edit(looser)
    assert (raised.kind, raised.by, raised.needs) == ("policy", "ana", ("operator", "safety"))
    assert raised.about == looser.hash
    assert rollout.tick() == ()
    with pytest.raises(OwnProposalError):
        rollout.approve(raised, ANA)
    rollout.approve(raised, BO, CY)
    (applied,) = rollout.tick({CREEK: MET})
    assert (applied.number, applied.by, applied.proposal) == (2, "policy", raised.proposal)
    assert applied.loosens == raised.loosens
    assert rollout.policy == looser


@pytest.mark.parametrize(
    "edit",
    [{"freezes": (Freeze("Jun 01", "fair"),)}, {"limits": (Limit(never_above="supervised"),)}],
    ids=["freeze", "ceiling"],
)
def test_taking_a_limit_away_is_looser_and_adding_one_is_not(edit):
    rollout = RolloutDriver()
    assert kinds(rollout.edit(policy(**edit))) == ["PolicyApplied"]
    assert kinds(rollout.edit(policy())) == ["ProposalRaised"]


def test_an_edit_that_leaves_fewer_approvals_for_later_ones_needs_those_of_before():
    rollout = supervised()
    (raised,) = rollout.edit(policy(gates=gates()[:1]))
    assert raised.needs == ("operator", "safety")
    assert list(map(say_looser, raised.loosens)) == [
        "a looser policy is approved by operator, operator, not operator, safety",
        "autonomous is approved by operator, operator, not operator, safety",
    ]


def test_a_looser_edit_voids_every_open_proposal_of_the_cells():
    rollout = supervised()
    rollout.raised(LAKE)
    rollout.approved()
    rollout.approve(rollout.edit(LOOSE_GATE)[0], BO, CY)
    assert kinds(rollout.tick({CREEK: MET})) == [
        "ProposalVoided",
        "ProposalVoided",
        "PolicyApplied",
    ]
    assert rollout.stage() == "supervised"


def test_the_same_edit_waits_once_whoever_asks_again():
    rollout = RolloutDriver()
    rollout.edit(LOOSE_GATE)
    assert rollout.edit(LOOSE_GATE) == ()
    assert rollout.edit(LOOSE_GATE, by=BO) == ()


def test_a_rejected_edit_is_gone_and_may_be_raised_again():
    rollout = RolloutDriver()
    (raised,) = rollout.edit(LOOSE_GATE)
    rollout.do(RejectProposal(at=rollout.at, by=BO, proposal=raised.proposal))
    assert kinds(rollout.edit(LOOSE_GATE)) == ["ProposalRaised"]


def test_an_edit_whose_text_is_not_at_hand_waits():
    rollout = RolloutDriver()
    rollout.approve(rollout.edit(LOOSE_GATE)[0], BO, CY)
    assert rollout.do(Tick(at=rollout.at)) == ()


def test_of_two_approved_edits_the_later_one_counts_and_the_other_is_void():
    rollout = RolloutDriver()
    (first,) = rollout.edit(LOOSE_GATE)
    (second,) = rollout.edit(policy(lease=HOUR))
    rollout.approve(second, BO, CY)
    rollout.approve(first, BO, CY)
    rollout.tick()
    assert rollout.policy == policy(lease=HOUR)
    assert not rollout.scope.proposals


def test_any_edit_in_force_voids_the_edits_that_were_weighed_against_the_policy_before():
    rollout = RolloutDriver()
    rollout.approve(rollout.edit(LOOSE_GATE)[0], BO, CY)
    rollout.edit(COSMETIC)
    assert rollout.tick() == ()
    assert rollout.policy == COSMETIC


def test_nothing_else_follows_in_the_tick_in_which_an_edit_comes_into_force():
    """The evidence was counted under the policy before: here by other cost levels."""
    lever = Lever("alarm", labels=("bear", "none"), actions=("siren", "nothing"))
    cost = Gate("supervised", (replace(AGREEMENT, measure=MEASURES["cost"], threshold=0.3),), 0.05)
    costly = replace(
        lever,
        labels=("bear", "none", "wolf"),
        actions=("siren", "nothing", "flash"),
        costs=(CostRule(9.0, did="flash"), CostRule(9.0, right="flash"), CostRule(1.0)),
    )
    rollout = RolloutDriver(policy(levers=(lever,), gates=(cost,)))
    key = cost.require[0].key
    seen = replace(MET.attempt, counts={key: (3000, 0)})
    rollout.approve(rollout.edit(policy(levers=(costly,), gates=(cost,)))[0], BO, DAN)
    evidence = replace(MET, attempt=seen, entered=seen)
    assert kinds(rollout.tick({CREEK: evidence})) == ["PolicyApplied"]


def test_a_policy_that_only_observes_can_be_left_again():
    rollout = RolloutDriver(policy(observe=True))
    rollout.approve(rollout.edit(policy())[0], BO, CY)
    assert kinds(rollout.tick()) == ["PolicyApplied"]
    assert rollout.policy == policy()


def test_a_policy_without_gates_asks_two_operators_for_its_first_one():
    rollout = RolloutDriver(policy(gates=()))
    assert rollout.edit(policy())[0].needs == ("operator", "operator")


# Risk and definition


def attempts(rollout: RolloutDriver) -> list[int]:
    return [rollout.scope.get_cell_state(c, "v1").attempt for c in rollout.policy.cells]


def looked_at(first: Policy | None = None) -> RolloutDriver:
    """Return a rollout in which v1 has answers in every cell."""
    rollout = supervised() if first is None else supervised(first)
    rollout.answered = ("v1",)
    return rollout


def put(rollout: RolloutDriver, new: Policy) -> PolicyApplied:
    """Put a policy in force, with approvals where it loosens."""
    events = rollout.edit(new)
    if isinstance(events[-1], PolicyApplied):
        return events[-1]
    rollout.approve(events[0], BO, Actor("eve", ("operator", "safety")))
    return next(e for e in rollout.tick() if isinstance(e, PolicyApplied))


def test_a_higher_risk_starts_the_next_attempt_and_leaves_the_grants():
    rollout = looked_at()
    applied = put(rollout, policy(gates=gates(supervised={"risk": 0.1})))
    assert set(applied.restarted) == set(rollout.policy.cells)
    assert attempts(rollout) == [2, 2, 2, 2]
    assert rollout.stage() == "supervised"


def test_a_higher_risk_of_a_gate_restarts_the_cells_that_it_is_for():
    here = Gate("supervised", (AGREEMENT,), 0.05, where=replace(gates()[0].where, sites=("lake",)))
    rollout = RolloutDriver(policy(gates=(here, *gates())))
    rollout.answered = ("v1",)
    put(rollout, policy(gates=(replace(here, risk=0.06), *gates())))
    assert attempts(rollout) == [1, 1, 2, 2]


def test_a_lower_risk_or_another_line_restarts_nothing():
    rollout = looked_at()
    put(rollout, policy(gates=gates(supervised={"risk": 0.01})))
    put(rollout, LOOSE_GATE)
    assert attempts(rollout)[1:] == [2, 2, 2]  # LOOSE_GATE took the risk back to 5 %
    rollout = looked_at()
    put(rollout, LOOSE_GATE)
    put(rollout, policy(gates=gates(supervised={"require": (replace(AGREEMENT, threshold=0.9),)})))
    assert attempts(rollout) == [1, 1, 1, 1]


def without_autonomous() -> Policy:
    return policy(gates=gates()[:1])


@pytest.mark.parametrize("risk", [0.005, 0.01, 0.02])
def test_a_gate_put_back_is_new_whatever_its_risk(risk):
    rollout = looked_at()
    put(rollout, without_autonomous())
    assert attempts(rollout) == [1] * 4
    assert put(rollout, policy(gates=gates(risk=risk))).restarted == rollout.policy.cells
    assert attempts(rollout) == [2] * 4


def test_a_new_gate_asks_anew_where_it_is():
    middle = Stage("assisted", blind=0.2)
    rollout = looked_at()
    added = Gate("assisted", (AGREEMENT,), 0.05, approvals=("operator", "operator"))
    here = replace(added, where=narrow_only(("creek",)))
    put(rollout, policy(stages=(SUPERVISED, middle, AUTONOMOUS), gates=(*gates(), here)))
    assert attempts(rollout) == [2, 2, 1, 1]


RECALL = Condition(MEASURES["recall"], 0.9, label="bear")
OF_DEER = replace(RECALL, label="deer")


@pytest.mark.parametrize(
    ("old", "new", "restarts"),
    [
        ((AGREEMENT,), (RECALL,), True),
        ((RECALL,), (OF_DEER,), True),
        ((AGREEMENT,), (AGREEMENT, RECALL), True),
        ((AGREEMENT, RECALL), (AGREEMENT,), True),
        (
            (AGREEMENT,),
            (Condition(MEASURES["agreement"], 0.95, population=EachValue("light")),),
            True,
        ),
        (
            (RECALL,),
            (Condition(MEASURES["recall"], 0.9, label="bear", population=PlantedUnits()),),
            True,
        ),
        ((AGREEMENT,), (replace(AGREEMENT, threshold=0.9),), False),
        ((RECALL, AGREEMENT), (AGREEMENT, RECALL), False),
    ],
    ids=["measure", "label", "added", "dropped", "slice", "population", "threshold", "order"],
)
def test_another_question_takes_the_next_share_and_counts_from_the_edit_on(old, new, restarts):
    rollout = RolloutDriver(policy(gates=gates(require=old)))
    rollout.after(DAY).answered = ("v1",)
    put(rollout, policy(gates=gates(require=new)))
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert (state.attempt, state.attempt_since == NOON) == ((2, False) if restarts else (1, True))
    following = foresee_attempt(rollout.scope, rollout.policy, CREEK, "v1", rollout.at)
    assert following.risk_share == compute_yearly_share(2 if restarts else 1)


def test_an_edit_costs_nothing_before_a_predicted_case_was_decided():
    rollout = RolloutDriver(policy(gates=gates(require=(AGREEMENT,))))
    applied = put(rollout.after(DAY), policy(gates=gates(require=(RECALL,))))
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert (applied.restarted, state.attempt, state.attempt_since) == ((), 1, NOON)
    assert not rollout.scope.attempt_years


def test_each_of_ten_edits_takes_a_share_and_no_answer_twice():
    rollout = RolloutDriver(policy(gates=gates(require=(RECALL,))))
    for number in range(1, 11):
        rollout.after(DAY).answered = ("v1",)
        put(rollout, policy(gates=gates(require=((RECALL, OF_DEER)[number % 2],))))
        rollout.answered = ()
    assert rollout.scope.attempt_years[CREEK].count == 10


def test_ten_edits_to_the_best_of_twenty_labels_open_no_more_than_the_gates_risk():
    """Each label is exactly at its line; after 100 units the best so far is asked next."""
    rollout = RolloutDriver(policy(gates=gates(require=(RECALL,))))
    chance, runs, labels = np.random.default_rng(11), 400, 20
    right = chance.random((runs, labels, 1_000)) < RECALL.threshold
    sums, opened, label = right.cumsum(2), np.zeros(runs, bool), np.zeros(runs, int)
    for number in range(1, 11):
        rollout.after(DAY).answered = ("v1",)
        state = foresee_attempt(rollout.scope, rollout.policy, CREEK, "v1", rollout.at)
        start, end = number * 100 - 100, number * 100
        counted = right[np.arange(runs), label, start:end].cumsum(1)
        wrong = np.arange(1, 101) - counted
        opened |= get_gate_threshold(0.9, 0.05 * state.risk_share).are_met(counted, wrong).any(1)
        label = sums[:, :, end - 1].argmax(1)
        put(rollout, policy(gates=gates(require=((RECALL, OF_DEER)[number % 2],))))
        assert rollout.scope.get_cell_state(CREEK, "v1").attempt_since == rollout.at
    assert opened.mean() <= 0.05


def test_an_operator_begins_the_next_attempt_at_its_price():
    rollout = supervised()
    ask = BeginNextAttempt(at=rollout.at, by=BO, cells=(CREEK, LAKE), version="v1", reason="box")
    with pytest.raises(NotEligibleError, match="no unit of v1 counts there yet"):
        rollout.do(replace(ask, cells=(LAKE,)))
    with pytest.raises(NotEligibleError, match="give a reason"):
        rollout.do(replace(ask, reason=" "))
    proposal = rollout.raised()
    voided, event = rollout.do(replace(ask, at=rollout.after(DAY).at))
    assert voided.proposal == proposal.id
    assert (event.cell, event.from_stage, event.to_stage) == (CREEK, "supervised", "supervised")
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert (state.attempt, state.attempt_since, rollout.stage()) == (2, rollout.at, "supervised")
    assert state.risk_share == compute_yearly_share(2)


EVERYWHERE, CREEK_ONLY = {"creek", "lake"}, {"creek"}


@pytest.mark.parametrize(
    ("new", "where"),
    [
        (policy(evidence=EvidenceRules(grace=2 * DAY)), EVERYWHERE),
        (policy(windows=(Window("day", "09:00-20:00"), Window("night"))), EVERYWHERE),
        (policy(sites=(Site("creek", "Europe/Zurich"), Site("lake", "UTC", wave=2))), CREEK_ONLY),
    ],
    ids=["grace", "window", "zone"],
)
def test_a_changed_definition_pops_all_grants_and_starts_the_next_attempt(new, where):
    rollout = autonomous()
    rollout.widen(LAKE)
    applied = put(rollout, new)
    assert {cell.site for cell in applied.cleared} == where
    assert (rollout.stage(), rollout.scope.get_cell_state(CREEK, "v1").attempt) == ("shadow", 2)
    assert rollout.stage(LAKE) == ("shadow" if "lake" in where else "supervised")


def test_a_changed_definition_voids_proposals_of_its_cells():
    rollout = RolloutDriver()
    rollout.approved()
    put(rollout, policy(evidence=EvidenceRules(verdicts=3)))
    assert not rollout.scope.proposals


def test_labels_added_at_the_end_restart_nothing_but_ask_people():
    lever = policy().levers[0]
    more = replace(lever, labels=(*lever.labels, "moose"), actions=(*lever.actions, "nothing"))
    rollout = supervised()
    assert put(rollout, policy(levers=(more,))).cleared == ()
    assert rollout.stage() == "supervised"
    assert attempts(rollout) == [1, 1, 1, 1]


def test_a_site_that_is_removed_loses_its_grants_and_may_come_back_in_shadow():
    rollout = autonomous()
    rollout.widen(LAKE)
    put(rollout, policy(sites=(Site("lake", "UTC", wave=2),)))
    assert (rollout.stage(), rollout.stage(LAKE)) == ("shadow", "supervised")
    assert rollout.tick({CREEK: MET}) == ()
    put(rollout, policy())
    assert rollout.stage() == "shadow"
    assert rollout.scope.get_cell_state(CREEK, "v1").attempt == 2


def test_a_site_that_is_removed_while_its_guards_are_in_alarm_stops_no_tick():
    rollout = supervised()
    rollout.widen(CREEK_NIGHT)
    rollout.tick({CREEK: alarm(*GUARDS[5:]), CREEK_NIGHT: alarm(HEARTBEAT)})
    put(rollout, policy(sites=(Site("lake", "UTC", wave=2),)))
    assert rollout.tick({CREEK: MET, CREEK_NIGHT: MET, LAKE: NOTHING}) == ()


def test_no_guard_looks_at_a_cell_that_the_policy_does_not_know():
    rollout = supervised()
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.policy = policy(sites=policy().sites[1:])
    assert rollout.tick({CREEK: alarm(HEARTBEAT)}) == ()
    assert rollout.stage() == "shadow"


# Ladders


MIDDLE = Stage("assisted", blind=0.2)


def laddered(*stages: Stage) -> Policy:
    """Return a policy with one gate to each stage, each the same."""
    return policy(
        stages=stages,
        gates=tuple(Gate(s.id, (AGREEMENT,), 0.05, approvals=("operator",) * 2) for s in stages),
    )


def climbed(first: Policy) -> RolloutDriver:
    rollout = RolloutDriver(first)
    for _ in first.stages:
        rollout.widen()
    return rollout


def edit(rollout: RolloutDriver, new: Policy) -> None:
    rollout.approve(rollout.edit(new)[0], BO, DAN)
    rollout.tick()
    assert rollout.policy == new


def test_a_rung_put_in_between_cuts_the_grants_above_it():
    rollout = climbed(laddered(SUPERVISED, AUTONOMOUS))
    edit(rollout, laddered(SUPERVISED, MIDDLE, AUTONOMOUS))
    assert rollout.stage() == "supervised"
    (narrowed,) = (event for event in rollout.events if isinstance(event, Narrowed))
    assert (narrowed.cause, narrowed.reason) == (EDITED_LADDER, "")
    rollout.widen()
    assert rollout.stage() == "assisted"  # and not autonomous, on the old grant


def test_a_renamed_rung_takes_its_grants_along():
    rollout = climbed(laddered(SUPERVISED, AUTONOMOUS))
    renamed = laddered(replace(SUPERVISED, id="helped"), AUTONOMOUS)
    edit(rollout, renamed)
    assert rollout.scope.get_cell_state(CREEK, "v1").grants == ()
    rollout.widen()
    assert rollout.stage() == "helped"
    assert kinds(rollout.narrow("shadow")) == ["Narrowed"]


def test_a_person_narrows_whatever_the_ladder_has_become():
    rollout = climbed(laddered(SUPERVISED, MIDDLE, AUTONOMOUS))
    edit(rollout, laddered(SUPERVISED, replace(MIDDLE, id="helped"), AUTONOMOUS))
    for to in ("autonomous", "helped"):
        with pytest.raises(NotNarrowerError):
            rollout.narrow(to)
    assert kinds(rollout.narrow()) == ["Narrowed"]


def test_a_shorter_ladder_cuts_what_is_above_it():
    rollout = climbed(laddered(SUPERVISED, AUTONOMOUS))
    rollout.edit(laddered(SUPERVISED))
    assert rollout.stage() == "supervised"
    assert len(rollout.scope.get_cell_state(CREEK, "v1").grants) == 1


# Guards that are edited while in alarm


def watched(*guards) -> Policy:
    return policy(guards=guards)


def test_a_stricter_line_of_a_suspending_guard_gives_nothing_back_by_itself():
    rollout = supervised(watched(HEARTBEAT))
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    stricter = replace(HEARTBEAT, condition=replace(HEARTBEAT.condition, threshold=3600))
    rollout.edit(watched(stricter))
    assert rollout.stage() == "shadow"
    assert kinds(rollout.tick({CREEK: alarm(stricter)}))[0] == "Suspended"
    since = rollout.at
    rollout.after(HOUR)
    events = rollout.tick({CREEK: good(since, stricter, of=NOTHING)})
    assert kinds(events) == ["SuspensionCleared", "SuspensionCleared"]
    assert rollout.stage() == "supervised"


def test_a_suspending_guard_that_people_took_away_is_cleared_when_the_others_are_good():
    rollout = supervised(watched(HEARTBEAT, LATENCY))
    rollout.tick({CREEK: alarm(HEARTBEAT)})
    rollout.approve(rollout.edit(watched(LATENCY))[0], BO, CY)
    rollout.tick()
    assert rollout.tick({CREEK: NOTHING}) == ()
    assert kinds(rollout.tick({CREEK: good(NOON, LATENCY, of=NOTHING)})) == ["SuspensionCleared"]
    assert rollout.stage() == "supervised"


# Resumes


def test_a_looser_edit_voids_an_approved_resume():
    rollout = autonomous()
    rollout.stop()
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    rollout.approve(rollout.edit(LOOSE_GATE)[0], BO, CY)
    rollout.tick()
    rollout.tick()
    assert rollout.stage() == "shadow"


def test_a_resume_is_void_where_the_new_policy_asks_other_people():
    rollout = autonomous()
    rollout.stop()
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    asks_more = gates(approvals=("operator", "safety", "finance"))
    assert kinds(rollout.edit(policy(gates=asks_more))) == ["ProposalVoided", "PolicyApplied"]
    assert rollout.ask_resume()[0].needs == ("operator", "safety", "finance")


def test_a_cosmetic_edit_leaves_a_resume_alone():
    rollout = autonomous()
    rollout.stop()
    rollout.ask_resume()
    rollout.approve(rollout.open("resume"), DAN, CY)
    rollout.edit(COSMETIC)
    assert kinds(rollout.tick()) == ["Resumed"]
