"""The moment of a widening: answers that are stored and don't count yet."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollout.engine.decide.commands import AddVersion, Tick
from rollout.engine.events import ProposalExpired, ProposalHeld, ProposalRaised, Widened
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.engine.words.event_text import CitedProposals, EventDescriber, describe_event
from rollout.engine.words.evidence_text import describe_fresh_fact
from rollout.features.replay.replay import replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.kernel.facts import FreshFact
from rollout.kernel.measures import MEASURES, Condition
from rollout.kernel.policy.cell_evidence import EvidenceCounts
from rollout.kernel.policy.gates import FreshEvidence, UnplacedDecisions, list_fresh_facts
from tests.factories import (
    AGREEMENT_KEY,
    BO,
    CREEK,
    DAN,
    DAY,
    MET,
    RolloutDriver,
    counted,
    kinds,
    policy,
    supervised,
)

UNHEARD = Path(__file__).parents[4] / "shared/data/field-cases/18-fresh-answers-unheard"
GOOD = FreshEvidence(counted(20), counted(2020), {AGREEMENT_KEY: ((20, 20), (50, 50))})
AGREEMENT, GUARD_CONDITION = (Condition(MEASURES["agreement"], line) for line in (0.95, 0.93))
NONE_AGREES = replace(GOOD, newest={AGREEMENT_KEY: ((0, 20),)})
TURNED = replace(GOOD, attempt=counted(2000, 400))


def tick(rollout, fresh, version="v1"):
    rollout.after(timedelta(minutes=15))
    key = (CREEK, version)
    command = Tick(at=rollout.at, evidence={key: MET}, fresh={key: fresh})
    return rollout.do(command)


@pytest.mark.parametrize(
    ("fresh", "fact"),
    [
        (NONE_AGREES, FreshFact("newest", AGREEMENT, 0, 20)),
        (TURNED, FreshFact("turned", AGREEMENT, 2000, 2400)),
        (
            replace(GOOD, alarms=(GUARD_CONDITION,)),
            FreshFact("alarm", GUARD_CONDITION),
        ),
        (
            replace(GOOD, unplaced=UnplacedDecisions(51, 1000)),
            FreshFact("unplaced", None, 51, 1000),
        ),
    ],
    ids=["newest answers", "e-value", "guard", "decisions without a place"],
)
def test_approved_widening_is_held_while_fresh_answers_speak_against_it(fresh, fact):
    rollout = RolloutDriver()
    proposal = rollout.approved()
    assert list_fresh_facts(rollout.policy, CREEK, 1, fresh) == (fact,)
    assert kinds(tick(rollout, fresh)) == ["ProposalHeld"]
    assert tick(rollout, fresh) == ()  # told once
    assert proposal.id in rollout.scope.proposals
    assert kinds(tick(rollout, GOOD))[0] == "Widened"


def test_held_widening_lapses_with_the_time_for_approvals():
    rollout = RolloutDriver()
    rollout.approved()
    tick(rollout, TURNED)
    rollout.after(14 * DAY)
    event = tick(rollout, TURNED)[0]
    assert isinstance(event, ProposalExpired)
    describer = EventDescriber(rollout.policy, CitedProposals())
    assert describe_event(1, event, describer).text == "P-1 expired before it was applied"


def test_nothing_is_raised_while_the_gate_is_not_met_with_fresh_answers():
    rollout = RolloutDriver()
    unmet = replace(GOOD, attempt=counted(110, 9))
    assert "ProposalRaised" not in kinds(tick(rollout, unmet))
    assert "ProposalRaised" in kinds(tick(rollout, GOOD))


def test_no_takeover_is_raised_or_applied_while_fresh_answers_speak_against_it():
    rollout = supervised()
    rollout.do(AddVersion(at=rollout.after(DAY).at, version="v2"))
    unmet = replace(GOOD, attempt=counted(110, 9))
    assert "ProposalRaised" not in kinds(tick(rollout, unmet, "v2"))
    assert "ProposalRaised" in kinds(tick(rollout, GOOD, "v2"))
    rollout.approve(rollout.open("takeover"), BO, DAN)
    assert kinds(tick(rollout, TURNED, "v2")) == ["ProposalHeld"]
    assert kinds(tick(rollout, GOOD, "v2"))[0] == "TakenOver"


def test_fresh_answers_hold_no_renewal():
    rollout = RolloutDriver()
    rollout.approve(rollout.raised(), BO, DAN)
    rollout.tick({CREEK: MET})
    rollout.after(80 * DAY).tick({CREEK: MET})
    rollout.approve(rollout.open("renewal"), BO, DAN)
    assert "Renewed" in kinds(tick(rollout, TURNED))


def test_as_many_decisions_without_a_place_as_may_be_missing_hold_nothing():
    fresh = replace(GOOD, unplaced=UnplacedDecisions(50, 1000))
    assert list_fresh_facts(policy(), CREEK, 1, fresh) == ()


@pytest.mark.parametrize(
    ("newest", "facts"),
    [
        (((17, 20), (45, 50)), ()),  # 5 % of cells at the line have as few
        (((16, 20), (44, 50)), (FreshFact("newest", AGREEMENT, 44, 50),)),
        (((16, 20), (45, 50)), (FreshFact("newest", AGREEMENT, 16, 20),)),
    ],
)
def test_the_most_of_the_newest_answers_that_agree_too_seldom_hold_a_widening(newest, facts):
    fresh = replace(GOOD, newest={AGREEMENT_KEY: newest})
    assert list_fresh_facts(policy(), CREEK, 1, fresh) == facts


def test_empty_evidence_holds_nothing():
    assert list_fresh_facts(policy(), CREEK, 1, FreshEvidence(EvidenceCounts(), counted(0))) == ()


@pytest.mark.skipif(not UNHEARD.exists(), reason=f"{UNHEARD} is not here")
def test_version_that_turned_bad_before_the_approval_is_not_widened():
    """Field case 18: all 29 blind answers from 00:20 to 09:40 disagree, inside their grace."""
    request = ReplayRequest(
        policy=UNHEARD / "policy.yaml",
        sources=RecordPaths(UNHEARD / "predictions.csv", UNHEARD / "decisions.csv"),
        options=ReplayOptions(approval_delay=timedelta(hours=4)),
    )
    events = replay_files(request).result.events
    (raised,) = (event for event in events if isinstance(event, ProposalRaised))
    (held,) = (event for event in events if isinstance(event, ProposalHeld))
    assert raised.at == datetime(2026, 3, 8, 6, tzinfo=UTC)
    assert held.at == datetime(2026, 3, 8, 10, tzinfo=UTC)
    texts = [describe_fresh_fact(fact) for fact in held.fresh_facts]
    assert "of the newest 100 answers 71 agree, for agreement at least 90 %" in texts
    assert "the guard on agreement at least 85 % would trip now" in texts
    (widened,) = (event for event in events if isinstance(event, Widened))
    assert widened.at > held.at + DAY


POLICY = """
rollout: gap
timezone: UTC
levers: [{id: answer, labels: [bear, none]}]
sites: [north]
evidence: {unit: case, grace: 6h, outside: blind}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 90%}]}
stages:
  - {id: supervised, blind: 50%, lasts: 91d}
"""
START = datetime(2026, 3, 2, 6, tzinfo=UTC)
RAISED = START + 6 * DAY


def replay_cell(folder, predicts_at_once=lambda _: True, unplaced=0, is_drawn=lambda _: True):
    """Replay a case every 20 minutes, decided after 5, of which not all are predicted before.

    Of `unplaced` other decisions no file has the case. The version runs on cases of `is_drawn`.
    """
    predictions = ["case_key,site,occurred_at,model_version,label,received_at"]
    decisions = ["case_key,reviewer,label,decided_at"]
    decisions += [f"x{number},ana,bear,{START.isoformat()}" for number in range(unplaced)]
    for number in range(800):
        at = START + number * timedelta(minutes=20)
        decided = at + timedelta(minutes=5)
        decisions.append(f"c{number},ana,bear,{decided.isoformat()}")
        label = "none" if number == 5 else "bear"
        received = at if predicts_at_once(at) else decided + timedelta(minutes=1)
        row = (f"c{number}", "north", at.isoformat(), "v1", label, received.isoformat())
        predictions.append(",".join(row))
    for name, lines in (("predictions", predictions), ("decisions", decisions)):
        (folder / f"{name}.csv").write_text("\n".join(lines), encoding="utf-8")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    cases = ["case_key,site,occurred_at,draws"]
    for number in range(800):
        at = START + number * timedelta(minutes=20)
        draws = '"{""v1"": true}"' if is_drawn(at) else '"{""v1"": false}"'
        cases.append(f"c{number},north,{at.isoformat()},{draws}")
    (folder / "cases.csv").write_text("\n".join(cases), encoding="utf-8")
    request = ReplayRequest(
        policy=folder / "policy.yaml",
        sources=RecordPaths(
            folder / "predictions.csv", folder / "decisions.csv", folder / "cases.csv"
        ),
        options=ReplayOptions(approval_delay=timedelta(hours=5)),  # within the grace
    )
    return replay_files(request).result.events


def test_version_that_stays_good_is_widened_when_it_is_approved(tmp_path):
    events = replay_cell(tmp_path)
    (widened,) = (event for event in events if isinstance(event, Widened))
    assert widened.at == RAISED + timedelta(hours=5)


def test_version_that_waits_for_answers_after_the_raising_is_not_widened(tmp_path):
    """Cases that it has not predicted in time count against it as soon as they are decided."""
    events = replay_cell(tmp_path, lambda at: at < RAISED)
    (raised,) = (event for event in events if isinstance(event, ProposalRaised))
    assert raised.at == RAISED
    (held,) = (event for event in events if isinstance(event, ProposalHeld))
    assert held.at == RAISED + timedelta(hours=5)
    assert "newest" in {fact.kind for fact in held.fresh_facts}
    assert "Widened" not in kinds(events)


@pytest.mark.parametrize("is_drawn", [True, False])
def test_fresh_answers_are_those_of_cases_on_which_the_version_runs(tmp_path, is_drawn):
    """After its proposal it waits for the answers of every second case, drawn or not."""

    def is_second(at):
        return at >= RAISED and (at - START) // timedelta(minutes=20) % 2 == 1

    events = replay_cell(
        tmp_path, lambda at: not is_second(at), is_drawn=lambda at: is_drawn or not is_second(at)
    )
    (raised,) = (event for event in events if isinstance(event, ProposalRaised))
    assert raised.at == RAISED
    widened = [event.at for event in events if isinstance(event, Widened)]
    assert widened == ([] if is_drawn else [RAISED + timedelta(hours=5)])


@pytest.mark.slow
@pytest.mark.parametrize(("unplaced", "is_held"), [(42, False), (43, True)])
def test_files_with_too_many_decisions_without_a_case_widen_nothing(tmp_path, unplaced, is_held):
    events = replay_cell(tmp_path, unplaced=unplaced)
    assert ("Widened" in kinds(events)) != is_held
    facts = [event.fresh_facts for event in events if isinstance(event, ProposalHeld)]
    assert facts == [(FreshFact("unplaced", None, 43, 843),)] * is_held
