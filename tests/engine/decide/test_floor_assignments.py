"""No case passes below a floor that the ledger opened, in the service and in its clients."""

from dataclasses import replace
from datetime import timedelta
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.cells.routes import build_scope
from rollout.engine.decide.assignment import BELOW_FLOOR, CaseQuestion, decide_assignment
from rollout.engine.decide.assignment_table import AssignmentTable
from rollout.engine.decide.commands import Actor, ApproveProposal, StopCells, Tick
from rollout.engine.events import (
    GrantExpired,
    Narrowed,
    ProposalRaised,
    Renewed,
    Stopped,
    TakenOver,
    Widened,
)
from rollout.kernel.calendar.instants import Cell
from rollout_client.local_scope import InvalidSnapshotError, parse_snapshot
from tests.client.local_answers import build_body, build_snapshot, decide_locally
from tests.engine.decide.test_floor_steps import COST, GOOD, GUARD, PAIRS, Ladder, at_floors, ladder
from tests.factories import ANA, CREEK, DAY, HOUR, NOON, SUPERVISED, TICK, replace_cell_state
from tests.properties import examples

SALT = bytes(range(32))
CONFIDENCES = (None, 0.0, 0.59, 0.6, 0.79, 0.8, 0.9, 0.97, 1.0, 1.01)
KEYS = [str(number) for number in range(12)]
BESIDE, NONE = Cell("lake", "day"), ((0, 0),) * 5
STRICT = ((0, 0), (0, 0), (470, 20), (400, 9), (300, 2))  # 0.8 opens first


def read_table(rollout, now):
    """Return the table of a rollout as the service sends it at an instant."""
    return build_body(rollout.policy, rollout.scope, now, {"creek": HOUR}, salt=SALT)


LAST = {}


def read_local(rollout, now):
    """Return what a client reads of a rollout; it is asked about many cases in turn."""
    if LAST.get("scope") is not rollout.scope or LAST["now"] != now:
        LAST.update(scope=rollout.scope, now=now, local=parse_snapshot(read_table(rollout, now)))
    return LAST["local"]


def read_cell(rollout):
    """Return the cell of the plain snapshot."""
    leases = {"creek": HOUR}
    made = build_snapshot(rollout.policy, rollout.scope, rollout.at, leases, salt=SALT)
    (cell,) = build_scope(made).cells
    return cell


def list_answers(rollout, now, confidence, key):
    """Return the answers of the rules, the compiled table and a client."""
    question = CaseQuestion("creek", now, "v1", key, confidence=confidence)
    wanted = decide_assignment(rollout.scope, rollout.policy, SALT, question, now=now)
    table = AssignmentTable(rollout.scope, rollout.policy, SALT, NOON, lambda _s, made, _u: made)
    compiled = table.find_answer(
        "creek", now, "v1", key, (now - NOON).total_seconds(), confidence=confidence
    )
    local = decide_locally(read_local(rollout, now), question, now=now, time_left=HOUR)
    return wanted, compiled, local


def is_let_through(answer):
    return answer.decider == "model" or answer.exposure == "assisted"


def read_floor(events, now):
    """Return by hand what the ledger opens at an instant: a stage level, and its floor."""
    grants = []
    for event in events:
        assert not isinstance(event, TakenOver)  # no story has a challenger
        if isinstance(event, Stopped):
            return 0, inf  # no story resumes
        grants = read_grants(event, grants)
    level = next((i for i, (_, _, until) in enumerate(grants) if until <= now), len(grants))
    return level, max((floor for _, floor, _ in grants[level - 1 :]), default=inf) if level else inf


def read_grants(event, grants):
    """Return stage, floor and end of each grant after an event."""
    if isinstance(event, Widened):
        kept = [grant for grant in grants if grant[0] != event.to_stage]
        floor = float(next(iter(event.confidence_floors), 0))
        return [*kept, (event.to_stage, floor, event.until)]
    if isinstance(event, Renewed):
        return [(s, f, event.until if s == event.stage else u) for s, f, u in grants]
    if isinstance(event, Narrowed) and event.confidence_floor:
        return [(s, max(f, float(event.confidence_floor)), u) for s, f, u in grants]
    stages = ["shadow", *(stage for stage, _, _ in grants)]
    if isinstance(event, Narrowed):
        kept = grants[: stages.index(event.to_stage)]
    elif isinstance(event, GrantExpired):
        kept = grants[: stages.index(event.stage) - 1]
    else:
        return grants
    return [(s, max(f, grants[-1][1]), u) for s, f, u in kept]


class History(Ladder):
    """A rollout whose events are kept, and whose users approve where a story says so."""

    def __init__(self, made):
        super().__init__(made)
        self.events = []

    def do(self, command):
        events = super().do(command)
        self.events += events
        return events

    def look(self, pairs, alarms, calm, *, approves, days, beside=((0, 0),) * 5):
        self.at += days * DAY + TICK
        evidence = {CREEK: at_floors(*pairs, guards=alarms, calm=calm), BESIDE: at_floors(*beside)}
        by_key = {(cell, "v1"): read for cell, read in evidence.items()}
        raised = self.do(Tick(at=self.at, evidence=by_key))
        for event in raised if approves else ():
            if isinstance(event, ProposalRaised):
                parts = {"proposal": event.proposal, "evidence_hash": event.evidence_hash}
                self.do(ApproveProposal(at=self.at, by=Actor("bo", ("a",)), **parts))


LOOKS = st.fixed_dictionaries(
    {
        "pairs": PAIRS | st.sampled_from([GOOD, GOOD, STRICT]).map(list),
        "beside": st.sampled_from([NONE, NONE, GOOD, STRICT]),
        "alarms": st.sampled_from([(), (), (), (GUARD,), (COST,), (GUARD, COST)]),
        "calm": st.sets(st.integers(0, 4)),
        "approves": st.sampled_from([True, True, True, False]),
        "days": st.sampled_from([0, 0, 0, 1, 50, 80]),
    }
)


@pytest.mark.slow
@examples(
    given(
        st.lists(LOOKS, min_size=1, max_size=9),
        st.sampled_from([0, 0, 0, 45, 89]),
        st.booleans(),
    ),
    fast=60,
    whole=600,
)
def test_no_history_lets_a_case_through_that_the_ledger_does_not_allow(looks, later, stops):
    rollout = History(ladder())
    for number, look in enumerate(looks):
        rollout.look(**look)
        if stops and number == len(looks) - 1:
            rollout.do(StopCells(at=rollout.at, by=ANA, cells=(CREEK,)))
        now = rollout.at + later * DAY + timedelta(minutes=1)
        own_events = [event for event in rollout.events if getattr(event, "cell", None) != BESIDE]
        level, floor = read_floor(own_events, now)
        for confidence in CONFIDENCES:
            is_sure = confidence is not None and floor <= confidence <= 1
            for key in KEYS[:3]:
                wanted, compiled, local = list_answers(rollout, now, confidence, key)
                assert (compiled or wanted).decider == local.decider == wanted.decider
                for answer in (wanted, local, *([compiled] if compiled else [])):
                    assert is_sure or not is_let_through(answer)
                    assert answer.stage == ("shadow", "supervised", "autonomous")[level]
                    assert is_sure or not level or answer.reason == BELOW_FLOOR


def open_strict():
    """Return a rollout that is supervised from 0.8 on."""
    rollout = Ladder()
    rollout.open(at_floors(*STRICT))
    return rollout


def count_passed(rollout, confidence):
    now = rollout.at + timedelta(minutes=1)
    answers = [list_answers(rollout, now, confidence, key) for key in KEYS]
    by_place = [sum(map(is_let_through, place)) for place in zip(*answers, strict=True)]
    assert len(set(by_place)) == 1  # rules, table and client alike
    return by_place[0]


def test_a_cell_opens_at_a_floor_and_an_alarm_raises_it():
    rollout = open_strict()
    assert [count_passed(rollout, c) > 0 for c in (0.79, 0.8, 0.97)] == [False, True, True]
    rollout.tick(at_floors(*STRICT, guards=(GUARD,), calm={4}))
    assert rollout.state.grants[-1].floors == ("0.97",)
    assert [count_passed(rollout, c) > 0 for c in (0.8, 0.96, 0.97)] == [False, False, True]


def test_the_upper_stages_floor_holds_for_the_lower_one_from_the_moment_it_ends():
    rollout = open_strict()
    rollout.open(at_floors((0, 0), (0, 0), (0, 0), (0, 0), (300, 2)))  # autonomous from 0.97
    now = rollout.at + timedelta(minutes=1)
    floors = [grant.floors[0] for grant in rollout.state.grants]
    assert floors == ["0.8", "0.97"]
    lower, upper = rollout.state.grants
    ended = replace(rollout.state, grants=(lower, replace(upper, until=now)))
    rollout.scope = replace_cell_state(rollout.scope, CREEK, "v1", ended)
    for confidence, is_open in ((0.9, False), (0.97, True)):
        answers = [list_answers(rollout, now, confidence, key) for key in KEYS]
        passed = [is_let_through(answer) for three in answers for answer in three if answer]
        assert any(passed) == is_open
        assert {three[0].stage for three in answers} == {"supervised"}


def test_a_grant_without_a_floor_lets_nothing_through_where_a_policy_has_several():
    rollout = open_strict()
    (grant,) = rollout.state.grants
    bare = replace(rollout.state, grants=(replace(grant, floors=()),))
    rollout.scope = replace_cell_state(rollout.scope, CREEK, "v1", bare)
    assert count_passed(rollout, 1.0) == 0


def test_a_client_that_ignores_floors_gets_no_grant():
    cell = read_cell(open_strict())
    assert [grant.confidence_floor for grant in cell.floor_grants] == [0.8]
    assert cell.grants == []


def test_without_several_floors_a_snapshot_has_plain_grants():
    rollout = Ladder(ladder(floors=()))
    evidence = at_floors((300, 2))
    rollout.open(replace(evidence, floors=()))
    cell = read_cell(rollout)
    assert ([grant.stage for grant in cell.grants], cell.floor_grants) == ([SUPERVISED.id], [])
    assert count_passed(rollout, None) > 0


@pytest.mark.parametrize("floor", ["0.8", -0.1, float("nan"), []])
def test_a_floor_that_is_no_share_is_no_snapshot(floor):
    rollout = open_strict()
    body = read_table(rollout, rollout.at)
    (cell,) = [cell for cell in body["table"]["sites"][0]["cells"] if cell["spans"]]
    cell["spans"][0][2] = floor
    with pytest.raises(InvalidSnapshotError):
        parse_snapshot(body)
