"""Stages and confidence floors: what opens, what an alarm raises, and that nothing leaks down."""

from dataclasses import replace
from math import log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.commands import Actor, ApplyPolicy, ApproveProposal, Tick
from rollout.engine.decide.decider import decide
from rollout.engine.decide.projection import apply_events
from rollout.engine.decide.scope import Grant
from rollout.engine.decide.widening_steps import get_acting_floor, raise_floors
from rollout.engine.events import (
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    ProposalVoided,
    RolloutCreated,
    TakenOver,
    VersionFirstUsed,
    Widened,
)
from rollout.features.proposals.proposal_details import list_grounds
from rollout.kernel.facts import RAISED_FLOOR
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import (
    EvidenceCounts,
    GuardReading,
    VersionEvidence,
    format_floor,
    list_floors,
)
from rollout.kernel.policy.policy import EvidenceRules, Gate, Guard, Minimum
from rollout.kernel.policy.stages import Stage
from rollout.kernel.statistics.evidence import compute_log_e
from tests.factories import ANA, CREEK, DAY, NOON, TICK, begin_attempt, hashed, policy

FLOORS = (0.6, 0.8, 0.9, 0.97)
AGREEMENT = Condition(MEASURES["agreement"], 0.9)
GUARD = Guard(Condition(MEASURES["agreement"], 0.85), "one-stage")
COST = Guard(Condition(MEASURES["cost"], 0.5), "one-stage")


def ladder(line=0.9, guards=(GUARD, COST), floors=FLOORS):
    gate = Gate(
        "supervised",
        (replace(AGREEMENT, threshold=line),),
        0.05,
        minimum=Minimum(10, 0, 1),
        approvals=("a",),
    )
    return policy(
        stages=(Stage("supervised", blind=0.3), Stage("autonomous", audit=0.3)),
        evidence=EvidenceRules(confidence_floors=(0.0, *floors) if floors else ()),
        gates=(gate, replace(gate, to="autonomous")),
        guards=guards,
    )


def counts(agreed, disagreed):
    return EvidenceCounts(
        closed=agreed + disagreed,
        days=9,
        reviewers=2,
        counts={AGREEMENT.key: (agreed, disagreed)},
    )


def at_floors(*pairs, guards=(), calm=()):
    """Return evidence of (agreed, disagreed) at each floor; `calm` are places of floors."""
    alarm = {guard.id: GuardReading(is_alarm=True) for guard in guards}
    floors = tuple(
        VersionEvidence(
            counts(*pair),
            counts(*pair),
            guards={guard.id: GuardReading(is_alarm=False, is_calm=i in calm) for guard in guards},
        )
        for i, pair in enumerate(pairs)
    )
    return replace(floors[0], guards=alarm, floors=floors)


class Ladder:
    """A rollout with floors, as a replay drives it."""

    def __init__(self, made=None):
        self.policy, self.at = made or ladder(), NOON
        self.scope = apply_events(
            (
                RolloutCreated(at=NOON, by="policy", salt_hash=""),
                PolicyApplied(at=NOON, by="ana", number=1, policy_hash=self.policy.hash),
                VersionFirstUsed(at=NOON, by="policy", version="v1"),
                begin_attempt("v1"),  # with the whole risk
            )
        )

    def do(self, command):
        events = decide(command, self.scope, self.policy)
        self.scope = apply_events(events, self.scope)
        return events

    def tick(self, evidence, challenger=None):
        self.at += TICK
        others = {} if challenger is None else {(CREEK, "v2"): challenger}
        return self.do(Tick(at=self.at, evidence={(CREEK, "v1"): evidence} | others))

    def open(self, evidence):
        """Raise, approve and apply a proposal; return what it widened."""
        (raised,) = (e for e in self.tick(evidence) if isinstance(e, ProposalRaised))
        bo = Actor("bo", ("a",))
        parts = {"proposal": raised.proposal, "evidence_hash": raised.evidence_hash}
        self.do(ApproveProposal(at=self.at, by=bo, **parts))
        (widened,) = (e for e in self.tick(evidence) if isinstance(e, Widened))
        return widened

    @property
    def state(self):
        return self.scope.get_cell_state(CREEK, "v1")


GOOD = ((560, 40), (520, 30), (470, 20), (400, 9), (300, 2))
VECTORS = (
    (0.90, GOOD, (2.305208428, 5.639999153, 10.271739639, 17.966791578, 22.668994097), "0.6"),
    (
        0.95,
        ((940, 60), (900, 40), (820, 25), (700, 14), (500, 5)),
        (-3.319145074, -1.290947099, 2.657697956, 7.364720464, 11.168865558),
        "0.9",
    ),
    (
        0.95,
        ((300, 6), (280, 4), (250, 3), (200, 2), (150, 1)),
        (2.673413050, 4.201832543, 4.457679245, 4.068732930, 3.840281195),
        "",
    ),
    (0.90, ((50, 0),) * 5, (4.321572722,) * 5, ""),
)


@pytest.mark.parametrize(("line", "pairs", "log_e", "acting"), VECTORS)
def test_a_floor_opens_on_its_own_evidence_at_an_equal_share_of_the_risk(
    line, pairs, log_e, acting
):
    values = [compute_log_e(*pair, at_least=line) for pair in pairs]
    assert values == pytest.approx(log_e, abs=1e-9)
    raised = [
        event
        for event in Ladder(ladder(line)).tick(at_floors(*pairs))
        if isinstance(event, ProposalRaised)
    ]
    assert [event.confidence_floor for event in raised] == [acting] * bool(acting)
    met = [f for f, v in zip(("0", *map(str, FLOORS)), values, strict=True) if v >= log(5 / 0.05)]
    assert [f for e in raised for f in (e.confidence_floor, *e.stricter_floors)] == met


def test_a_proposal_says_which_cases_it_is_about():
    raised = Ladder().tick(at_floors(*GOOD))[-1]
    assert list_grounds(raised, ladder())[-1] == (
        "cases of confidence 0.6 or more; each of the 5 confidence floors has 1/5 of the risk"
    )
    assert raised.readings[0].risk == "0.01"


def test_another_floor_has_another_evidence_hash():
    first = Ladder().tick(at_floors((0, 0), *[(300, 2)] * 4))[-1]
    other = Ladder().tick(at_floors((0, 0), (0, 0), *[(300, 2)] * 3))[-1]
    assert (first.confidence_floor, other.confidence_floor) == ("0.6", "0.8")
    assert first.readings[0] == other.readings[0]
    assert first.evidence_hash != other.evidence_hash


def test_the_next_stage_starts_at_the_acting_floor_and_lower_floors_follow():
    rollout = Ladder()
    strict = at_floors((0, 0), (0, 0), (470, 20), (400, 9), (300, 2))
    assert rollout.open(strict).confidence_floors == ("0.8", "0.9", "0.97")
    wide = rollout.open(at_floors(*GOOD))
    assert (wide.to_stage, wide.confidence_floors[0]) == ("autonomous", "0.8")
    lower = rollout.open(at_floors(*GOOD))
    assert (lower.to_stage, lower.confidence_floors[0]) == ("autonomous", "0.6")
    assert [grant.stage for grant in rollout.state.grants] == ["supervised", "autonomous"]


def test_a_lower_floor_holds_the_stage_since_before():
    rollout = Ladder(replace(ladder(), gates=ladder().gates[:1]))
    rollout.open(at_floors((0, 0), (0, 0), (470, 20), (400, 9), (300, 2)))
    (before,) = rollout.state.grants
    rollout.open(at_floors(*GOOD))
    (after,) = rollout.state.grants
    assert (before.floors[0], after.floors[0]) == ("0.8", "0.6")
    assert after.held_since == before.held_since < after.since


def test_a_proposal_is_void_once_the_evidence_at_its_floor_turns():
    rollout = Ladder()
    rollout.tick(at_floors(*GOOD))
    turned = at_floors((560, 40), (400, 200), *GOOD[2:])
    kinds = [type(event).__name__ for event in rollout.tick(turned)]
    assert kinds == ["ProposalVoided", "ProposalRaised"]
    (proposal,) = rollout.scope.proposals.values()
    assert proposal.floors[0] == "0.8"


def alarmed(*guards, calm=()):
    """Return a rollout at floor 0.6 and what a tick with alarms makes of it."""
    rollout = Ladder()
    rollout.open(at_floors(*GOOD))
    events = rollout.tick(at_floors(*GOOD, guards=guards, calm=calm))
    return rollout, [event for event in events if isinstance(event, Narrowed)]


def test_an_alarm_raises_the_floor_to_the_first_calm_one_that_was_met():
    rollout, (narrowed,) = alarmed(GUARD, calm={0, 3, 4})
    assert (narrowed.from_stage, narrowed.to_stage) == ("supervised", "supervised")
    assert (narrowed.confidence_floor, narrowed.restart) == ("0.9", True)
    assert rollout.state.grants[-1].floors == ("0.9", "0.97")
    assert rollout.state.attempt == 2


@pytest.mark.parametrize(("calm", "ends_as"), [({4}, ProposalVoided), (None, TakenOver)])
def test_a_takeover_is_void_once_an_alarm_has_raised_the_floor_that_it_would_take(calm, ends_as):
    rollout, nothing = Ladder(), at_floors(*((0, 0),) * 5)
    rollout.open(at_floors(*GOOD))
    challenger = VersionFirstUsed(at=rollout.at, by="policy", version="v2")
    rollout.scope = apply_events((challenger, begin_attempt("v2", at=rollout.at)), rollout.scope)
    (raised,) = rollout.tick(nothing, challenger=at_floors(*GOOD))
    assert (raised.kind, raised.confidence_floor) == ("takeover", "0.6")
    parts = {"proposal": raised.proposal, "evidence_hash": raised.evidence_hash}
    rollout.do(ApproveProposal(at=rollout.at, by=Actor("bo", ("a",)), **parts))
    holder = nothing if calm is None else at_floors(*GOOD, guards=(GUARD,), calm=calm)
    events = rollout.tick(holder, challenger=at_floors(*GOOD))
    (last,) = (event for event in events if isinstance(event, ProposalVoided | TakenOver))
    assert isinstance(last, ends_as)
    if isinstance(last, ProposalVoided):
        assert last.cause == RAISED_FLOOR
    assert get_acting_floor(rollout.state) == ("0.97" if calm else "")


def test_an_alarm_that_no_floor_escapes_lowers_the_stage():
    rollout, (narrowed,) = alarmed(GUARD, calm={0, 1})  # below the acting floor
    assert (narrowed.to_stage, narrowed.confidence_floor) == ("shadow", "")
    assert rollout.state.grants == ()


def test_two_alarms_raise_the_floor_once_where_both_are_calm():
    rollout, narrowed = alarmed(GUARD, COST, calm={3, 4})
    assert [event.confidence_floor for event in narrowed] == ["0.9"]
    assert rollout.state.attempt == 2


def test_a_floor_that_was_never_met_is_no_way_out():
    rollout = Ladder()
    rollout.open(at_floors(*GOOD[:3], (0, 0), (0, 0)))
    assert rollout.state.grants[-1].floors == ("0.6", "0.8")
    rollout.tick(at_floors(*GOOD[:3], (0, 0), (0, 0), guards=(GUARD,), calm={3, 4}))
    assert rollout.state.grants == ()


def test_a_guard_that_goes_to_shadow_asks_no_floor():
    guard = replace(GUARD, then="shadow")
    rollout = Ladder(ladder(guards=(guard,)))
    rollout.open(at_floors(*GOOD))
    rollout.tick(at_floors(*GOOD, guards=(guard,), calm={2, 3, 4}))
    assert rollout.state.grants == ()


def test_losing_a_stage_never_lowers_the_floor():
    rollout = Ladder(ladder(guards=(COST,)))
    rollout.open(at_floors(*GOOD))
    rollout.open(at_floors(*GOOD))
    assert [grant.floors[0] for grant in rollout.state.grants] == ["0.6", "0.6"]
    rollout.tick(at_floors(*GOOD, guards=(COST,), calm={4}))
    rollout.tick(at_floors(*GOOD, guards=(COST,)))  # nothing is calm: the stage goes
    assert [(g.stage, g.floors) for g in rollout.state.grants] == [("supervised", ("0.97",))]


def test_the_stage_below_keeps_the_floor_of_the_one_that_is_lost():
    made = ladder()
    supervised, autonomous = made.gates
    strict = replace(autonomous, require=(replace(AGREEMENT, threshold=0.95),))
    rollout = Ladder(replace(made, gates=(supervised, strict)))
    rollout.open(at_floors(*GOOD))
    rollout.open(at_floors(*GOOD))
    assert [grant.floors[0] for grant in rollout.state.grants] == ["0.6", "0.97"]
    rollout.tick(at_floors(*GOOD, guards=(COST,)))
    assert [(g.stage, g.floors[0]) for g in rollout.state.grants] == [("supervised", "0.97")]


FLOOR_TEXTS = st.sampled_from(tuple(map(format_floor, list_floors(ladder().evidence))))
GRANTS = st.lists(st.sets(FLOOR_TEXTS, min_size=1).map(sorted).map(tuple), min_size=1, max_size=3)


@given(GRANTS, FLOOR_TEXTS)
def test_raising_a_floor_opens_none(floors, floor):
    whole = Grant("autonomous", NOON, NOON + DAY, "P-1", NOON)
    grants = tuple(replace(whole, floors=met) for met in floors)
    for before, after in zip(grants, raise_floors(grants, floor), strict=True):
        assert float(after.floors[0]) >= max(float(before.floors[0]), float(floor))
        assert list(after.floors) == sorted(after.floors, key=float)


PAIRS = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 40)), min_size=5, max_size=5)


@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_no_floor_opens_without_its_own_evidence(looks):
    rollout = Ladder()
    for pairs in looks:
        for event in rollout.tick(at_floors(*pairs)):
            if isinstance(event, ProposalRaised):
                floors = dict(zip(("0", *map(str, FLOORS)), pairs, strict=True))
                for floor in (event.confidence_floor, *event.stricter_floors):
                    assert sum(floors[floor]) >= 10
                    assert compute_log_e(*floors[floor], at_least=0.9) >= log(5 / 0.05) - 1e-9


def test_no_data_opens_nothing():
    assert not Ladder().tick(at_floors(*[(0, 0)] * 5))


def test_a_policy_with_several_floors_names_them_where_it_is_applied():
    created = RolloutCreated(at=NOON, by="policy", salt_hash="")
    (first,) = decide(
        ApplyPolicy(at=NOON, by=ANA, policy=hashed(ladder())), apply_events((created,)), policy()
    )
    assert first.confidence_floors == ("0", "0.6", "0.8", "0.9", "0.97")
    stricter = hashed(ladder(0.95))
    (edited,) = decide(ApplyPolicy(at=NOON, by=ANA, policy=stricter), Ladder().scope, ladder())
    assert edited.confidence_floors == first.confidence_floors


def test_without_several_floors_events_name_none():
    rollout = Ladder(ladder(floors=()))
    evidence = VersionEvidence(counts(300, 2), counts(300, 2))
    widened = rollout.open(evidence)
    assert widened.confidence_floors == ()
    assert get_acting_floor(rollout.state) == ""
