"""A compiled table never answers other than the rules, whatever the policy, instant and case."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide import assignment_table
from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout.engine.decide.assignment_table import AssignmentTable
from rollout.engine.decide.scope import (
    CellValues,
    Grant,
    Scope,
    Stop,
    Version,
    build_initial_state,
    set_cell_state,
)
from rollout.kernel.calendar.instants import Cell, Site, Window
from rollout.kernel.calendar.opening_hours import find_next_change
from rollout.kernel.policy.familiarity import FAMILIAR, MISTAKEN, FamiliarAttribute, FamiliarityRule
from rollout.kernel.policy.policy import EvidenceRules, Limit, Stage
from tests.factories import AUTONOMOUS, DAY, HOUR, MINUTE, NOON, SUPERVISED, autonomous, policy
from tests.properties import examples

SALT = bytes(range(32))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SPRING, AUTUMN = datetime(2027, 3, 28, 1, tzinfo=UTC), datetime(2027, 10, 31, 1, tzinfo=UTC)
STARTS = (NOON, SPRING, AUTUMN)
HOURS = (None, "08:00-20:00", "22:00-02:30", "sunrise-sunset", "Mo-Fr 02:15-02:45", "PH", "24/7")
ATTRIBUTES = (None, {}, {"w": "dry"}, {"w": "wet"}, {"w": "odd"})
MICROSECOND, SECOND = timedelta(microseconds=1), timedelta(seconds=1)
NEAR = [
    sign * span
    for sign in (1, -1)
    for span in (0 * MINUTE, MICROSECOND, 800 * MICROSECOND, MINUTE / 60, 3 * MINUTE, 3 * HOUR)
]

sites = st.builds(
    Site,
    id=st.just("s"),
    timezone=st.sampled_from(["UTC", "Europe/Vienna", "Pacific/Chatham"]),
    country=st.just("AT"),
    coordinates=st.just((48.2, 16.4)),
    lease=st.sampled_from([None, MINUTE, 5 * HOUR]),
)
windows = st.lists(
    st.tuples(st.sampled_from(HOURS), st.sampled_from([{}, {}, {"w": ("dry",)}])),
    min_size=1,
    max_size=4,
).map(lambda rows: tuple(Window(f"w{n}", hours, when) for n, (hours, when) in enumerate(rows)))
stages = st.sampled_from(
    [
        (SUPERVISED, AUTONOMOUS),
        (Stage("autonomous", blind=0.3, audit=0.5),),
        (SUPERVISED, Stage("autonomous", audit=1.0)),
        (SUPERVISED, Stage("autonomous", audit=0.1)),
        (Stage("autonomous", blind=0.3, audit=0.1),),
    ]
)
evidence = st.builds(
    EvidenceRules,
    unit=st.sampled_from(["case", "episode"]),
    episode_span=st.sampled_from([None, HOUR]),
    confidence_floor=st.sampled_from([None, None, 0.8]),
    confidence_floors=st.sampled_from([(), (), (0.0, 0.9, 0.95), (0.8, 0.9, 0.95)]),
    familiar=st.sampled_from([None, None, FamiliarityRule((FamiliarAttribute(("w",)),))]),
)
days = st.sampled_from([None, *(start.date() + n * DAY for start in STARTS for n in (0, 1))])
limits = st.lists(
    st.builds(Limit, never_above=st.sampled_from([None, "autonomous", "shadow"]), ends=days),
    max_size=1,
).map(tuple)
instants = st.builds(
    lambda start, span, near: start + span + near,
    st.sampled_from(STARTS),
    st.sampled_from([0 * HOUR, HOUR, 8 * HOUR, DAY]),
    st.sampled_from(NEAR),
)


@st.composite
def worlds(draw):
    """Return a policy with one site, and a scope with grants, stops and suspensions in it."""
    stage_list = draw(stages)
    rules = policy(
        sites=(draw(sites),),
        windows=draw(windows),
        stages=stage_list,
        evidence=draw(evidence),
        limits=tuple(
            limit
            for limit in draw(limits)
            if limit.never_above is None or limit.never_above in {s.id for s in stage_list}
        ),
        gates=(),
        guards=(),
        lease=draw(st.sampled_from([MINUTE, 12 * HOUR])),
    )
    cells, holders, stops, values = {}, {}, {}, {}
    for cell in rules.cells:
        level = draw(st.sampled_from([*range(len(stage_list) + 1), len(stage_list)]))
        grants = tuple(
            Grant(
                stage.id,
                since,
                since + draw(st.sampled_from([HOUR, DAY, 90 * DAY])),
                "",
                since,
                floors=draw(st.sampled_from([(), ("0",), ("0.8", "0.95"), ("0.9",)])),
            )
            for stage in stage_list[:level]
            for since in [draw(instants) - draw(st.sampled_from([0 * DAY, DAY, 30 * DAY]))]
        )
        guards = frozenset(draw(st.sampled_from([(), (), (), ("latency",)])))
        state = replace(build_initial_state(NOON, ()), grants=grants, suspended_by=guards)
        set_cell_state(cells, holders, cell, draw(st.sampled_from(["v1", "v1", "v2"])), state)
        if draw(st.integers(0, 6)) == 0:
            stops[f"S-{cell.window}"] = Stop(f"S-{cell.window}", frozenset({cell}), "bo", NOON)
        values[cell, "v1"] = CellValues({("w", "dry"): FAMILIAR, ("w", "wet"): MISTAKEN})
    scope = Scope(
        policy_number=1,
        versions={
            "v1": Version("v1", NOON, NOON if draw(st.integers(0, 9)) == 0 else None),
            "v2": Version("v2", NOON),
        },
        aliases={"v1-again": "v1"},
        cells=cells,
        stops=stops,
        cell_values=values,
        at=draw(st.none() | instants | st.just(SPRING - 60 * DAY)),
        revision=41,
        _holders=holders,
    )
    return rules, scope


questions = st.builds(
    CaseQuestion,
    site=st.sampled_from(["s", "s", "s", "s", "moon", ""]),
    at=st.none(),
    version=st.sampled_from(["v1", "v1", "v1", "v1-again", "v2", "v9", ""]),
    key=st.sampled_from([*map(str, range(20)), ""]),
    episode=st.sampled_from(["", "e1", "e2"]),
    confidence=st.sampled_from([None, -0.1, 0.79, 0.8, 0.9, 0.94, 1.0, 1.01, float("nan")]),
    attributes=st.sampled_from(ATTRIBUTES),
)


def build_table(scope, rules, base=EPOCH):
    return AssignmentTable(scope, rules, SALT, base, lambda site, made, until: (site, made, until))


def find(table, question, now, base=EPOCH):
    return table.find_answer(
        question.site,
        question.at,
        question.version,
        question.key,
        (now - base).total_seconds(),
        question.episode,
        question.confidence,
        question.attributes,
    )


def check(found, wanted, now, base=EPOCH):
    """See that an answer is that of the rules, with the lease as computed from its end."""
    _, made, until = found
    left = until - (now - base).total_seconds()
    lease = min(made.lease, timedelta(seconds=min(left, 1e9)))
    assert replace(made, lease=wanted.lease) == wanted
    assert abs(lease - wanted.lease) <= 2 * MICROSECOND


@pytest.mark.slow
@examples(
    given(
        worlds(),
        st.lists(st.tuples(instants, st.sampled_from(NEAR[:-1]), questions), max_size=12),
        st.sampled_from([EPOCH, NOON - timedelta(seconds=98.765432)]),
    ),
    fast=60,
    whole=400,
)
def test_a_compiled_answer_is_the_one_of_the_rules(world, asked, base):
    rules, scope = world
    table = build_table(scope, rules, base)
    for now, near, question in asked:
        case = replace(question, at=now + near)
        found = find(table, case, now, base)
        if found is not None:
            check(found, decide_assignment(scope, rules, SALT, case, now=now), now, base)


@pytest.mark.slow
@examples(given(worlds(), st.integers(0, 3 * 96), questions), fast=30, whole=200)
def test_away_from_edges_every_known_case_is_compiled(world, quarter, question):
    rules, scope = world
    now = SPRING - DAY + quarter * 15 * MINUTE + timedelta(seconds=30.5)
    scope = replace(scope, at=SPRING - 60 * DAY)
    case = replace(question, site="s", version=question.version or "v1", key="k", at=now)
    found, edges = find(build_table(scope, rules), case, now), list_edges(rules, scope, now)
    if all(abs(edge - now) > MINUTE / 60 for edge in edges):
        assert found is not None
        check(found, decide_assignment(scope, rules, SALT, case, now=now), now)


def list_edges(rules, scope, now):
    """Return the instants next to `now` at which anything may change by time."""
    site = rules.sites[0]
    changes = [
        find_next_change(w.hours, site, at)
        for w in rules.windows
        if w.hours
        for at in (now - MINUTE, now)
    ]
    grants = [e for s in scope.cells.values() for g in s.grants for e in (g.since, g.until)]
    limited = [rules.compute_end(cell) for cell in rules.cells]
    return [edge for edge in (*changes, *grants, *limited) if edge is not None]


# What a question costs

BUSY = autonomous()


@pytest.fixture
def calls(monkeypatch):
    """Count what is computed of windows."""
    counts = {"spans": 0, "hashes": 0}
    find_open_span, hash_window = assignment_table.find_open_span, Window.__hash__

    def count_spans(*args):
        counts["spans"] += 1
        return find_open_span(*args)

    def count_hashes(window):
        counts["hashes"] += 1
        return hash_window(window)

    monkeypatch.setattr(assignment_table, "find_open_span", count_spans)
    monkeypatch.setattr(Window, "__hash__", count_hashes)
    return counts


@pytest.mark.parametrize(("version", "is_stopped"), [("v1", False), ("v2", False), ("v1", True)])
def test_a_question_after_the_first_computes_nothing_of_windows(calls, version, is_stopped):
    rollout = autonomous()
    if is_stopped:
        rollout.stop()
    now = rollout.at + HOUR
    table = build_table(rollout.scope, rollout.policy)
    first = CaseQuestion("creek", now, version, "k0")
    assert find(table, first, now) is not None
    assert calls["spans"] == 1
    assert calls["hashes"] == len(rollout.policy.windows)  # their hours were looked up once
    calls["hashes"] = 0
    answers = []
    for number in range(100):
        at = now + number * timedelta(seconds=1)
        answers.append(find(table, replace(first, at=at, key=f"k{number}"), at))
    assert None not in answers
    assert len({id(answer) for answer in answers}) <= 3  # ready-made, one a bucket
    assert (calls["spans"], calls["hashes"]) == (1, 0)


def test_the_next_window_is_compiled_at_its_first_question(calls):
    evening = NOON + 8 * HOUR  # day ends at 20:00
    table = build_table(BUSY.scope, BUSY.policy)
    deciders = []
    for now in (evening - MINUTE, evening + MINUTE, evening + 2 * MINUTE):
        _, made, _ = find(table, CaseQuestion("creek", now, "v1", "k9"), now)
        deciders.append(made.decider)
    assert deciders == ["model", "human", "human"]
    compiled = calls["spans"]
    assert compiled == 2


def test_made_up_versions_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(assignment_table, "MAX_SEGMENTS", 10)
    table = build_table(BUSY.scope, BUSY.policy)
    for number in range(100):
        find(table, CaseQuestion("creek", BUSY.at + HOUR, f"v{number}", "k"), BUSY.at + HOUR)
    assert len(table._segments) <= 10
    assert len(table._present_segments) <= 10


@pytest.mark.parametrize("at", [None, NOON.replace(tzinfo=None), NOON + 5 * MINUTE])
def test_a_case_without_a_usable_time_is_left_to_the_rules(at):
    now = BUSY.at + HOUR
    case = CaseQuestion("creek", at, "v1", "k9")
    assert find(build_table(BUSY.scope, BUSY.policy), case, now) is None


WHOLE_DAY = (Window("day"),)


def test_a_limit_ends_at_its_local_day():
    limit = Limit(ends=date(2027, 7, 29))
    rules = policy(limits=(limit,), windows=WHOLE_DAY)
    ends = rules.compute_end(Cell("creek", "day"))
    unlimited = policy(windows=WHOLE_DAY)
    scope = autonomous(unlimited).scope
    table = build_table(scope, rules)
    deciders = []
    for now in (ends - SECOND, ends + SECOND):
        _, made, _ = find(table, CaseQuestion("creek", now, "v1", "k9"), now)
        deciders.append(made.decider)
    assert deciders == ["model", "human"]


@pytest.mark.parametrize("near", [-MINUTE, MINUTE])
def test_a_case_of_another_window_than_the_question_is_left_to_the_rules(near):
    edge = NOON + 8 * HOUR  # day ends at 20:00
    table, now = build_table(BUSY.scope, BUSY.policy), edge + near
    assert find(table, CaseQuestion("creek", edge + near / 2, "v1", "k9"), now) is not None
    assert find(table, CaseQuestion("creek", edge - near, "v1", "k9"), now) is None


@pytest.mark.parametrize("skew", [-5 * MINUTE, 5 * MINUTE])
def test_a_case_of_another_time_is_left_to_the_rules(skew):
    table, now = build_table(BUSY.scope, BUSY.policy), BUSY.at + HOUR
    assert find(table, CaseQuestion("creek", now + skew, "v1", "k9"), now) is None


def test_around_the_skew_limit_each_moment_of_a_second_answers_by_the_rules():
    start = BUSY.at + HOUR
    table = build_table(BUSY.scope, BUSY.policy)
    compiled = set()
    moments = [timedelta(milliseconds=n) for n in (0, 1, 500, 999, 1_000, 1_500, 400)]
    for now in [start + moment for moment in moments]:
        for away in [timedelta(seconds=n / 4) for n in range(1_188, 1_209)]:  # 297 to 302 s
            for at in (start - away, start + away, now - away, now + away):
                case = CaseQuestion("creek", at, "v1", "k9")
                if (found := find(table, case, now)) is not None:
                    check(
                        found, decide_assignment(BUSY.scope, BUSY.policy, SALT, case, now=now), now
                    )
                    compiled.add(abs(at - now))
    assert max(compiled) > timedelta(seconds=299)  # a second at most is given to the rules


def test_questions_of_one_second_compute_the_times_of_cases_once(monkeypatch):
    computed, find_present = [], AssignmentTable._find_present_segment
    monkeypatch.setattr(
        AssignmentTable,
        "_find_present_segment",
        lambda *args: computed.append(args) or find_present(*args),
    )
    now, table = BUSY.at + HOUR, build_table(BUSY.scope, BUSY.policy)
    for number in range(100):
        at = now + number * timedelta(milliseconds=9)
        assert find(table, CaseQuestion("creek", at, "v1", f"k{number}"), at) is not None
    assert len(computed) == 1
