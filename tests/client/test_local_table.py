"""By its table a client answers as the core, at every instant of its lease, also at edges."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.assignment import CaseQuestion, decide_assignment
from rollout_client.client import EdgeClient
from rollout_client.local_scope import parse_snapshot
from tests.client.edge_clients import MovableClocks
from tests.client.local_answers import SALT, build_body, decide_locally
from tests.engine.decide.test_assignment_table import NEAR, instants, list_edges, questions, worlds
from tests.factories import CREEK, DAY, HOUR, MINUTE, autonomous
from tests.properties import examples

MICROSECOND = timedelta(microseconds=1)
FIELDS = ("decider", "stage", "exposure", "share", "reason", "revision")


def list_leases(rules):
    return {site.id: site.lease or rules.lease for site in rules.sites}


SURE = st.builds(
    CaseQuestion,
    site=st.just("s"),
    at=st.none(),
    version=st.sampled_from(["v1", "v1-again"]),
    key=st.integers(0, 20).map(str),
    episode=st.sampled_from(["", "e1"]),
    confidence=st.sampled_from([0.8, 0.95, 1.0]),
    attributes=st.just({"w": "dry"}),
)
CASES = st.one_of(questions, SURE, SURE)


def choose_start(scope, issued_at, number):
    """Return when a table is issued: at an instant, or soon after a stage was granted.

    Its ledger's last entry is older, or ahead of its clock by less than two hours.
    """
    tops = [max(g.since for g in s.grants) for s in scope.cells.values() if s.grants]
    starts = [issued_at, *(top + MINUTE for top in tops), *(top + MINUTE for top in tops)]
    start = starts[number % len(starts)]
    if scope.at is not None and scope.at > start + DAY:
        scope = replace(scope, at=start + number * MINUTE)
    return scope, start


def find_instants(rules, scope, issued_at):
    """Return the edges of a table's time, which random instants would miss."""
    last = issued_at + list_leases(rules)["s"]
    spans = range(0, int((last - issued_at) / MINUTE) + 1, 30)
    edges = {edge for n in spans for edge in list_edges(rules, scope, issued_at + n * MINUTE)}
    return [edge for edge in sorted(edges) if issued_at <= edge <= last]


@pytest.mark.slow
@examples(
    given(
        worlds(),
        instants,
        st.integers(0, 100),
        st.lists(
            st.tuples(
                st.integers(0, 1_000),
                st.sampled_from([-MICROSECOND, 0 * MINUTE, MICROSECOND, 2 * MINUTE, 3 * HOUR]),
                st.sampled_from(NEAR[:-1]),
                CASES,
            ),
            max_size=12,
        ),
    ),
    fast=60,
    whole=400,
)
def test_a_client_answers_as_the_core_from_the_serialised_table(world, issued_at, number, asked):
    rules, scope = world
    leases = list_leases(rules)
    scope, issued_at = choose_start(scope, issued_at, number)
    local = parse_snapshot(json.loads(json.dumps(build_body(rules, scope, issued_at, leases))))
    moments = [issued_at, *find_instants(rules, scope, issued_at)]
    for place, off, near, question in asked:
        now = max(issued_at, moments[place % len(moments)] + off)
        case = replace(question, at=now + near)
        time_left = leases.get(case.site, timedelta(0)) - (now - issued_at)
        if case.site not in leases:
            time_left = timedelta(0)
        wanted = decide_assignment(scope, rules, SALT, case, now=now, time_left=time_left)
        assert decide_locally(local, case, now=now, time_left=time_left) == wanted


@pytest.mark.slow
@examples(
    given(
        worlds(),
        instants,
        st.integers(0, 100),
        st.lists(
            st.tuples(st.integers(0, 1_000), st.sampled_from(NEAR), CASES),
            min_size=1,
            max_size=12,
        ),
    ),
    fast=40,
    whole=300,
)
def test_prepared_answers_are_those_of_the_table_by_both_clocks(world, issued_at, number, asked):
    rules, scope = world
    scope, issued_at = choose_start(scope, issued_at, number)
    clocks = MovableClocks(wall=issued_at)
    body = build_body(rules, scope, issued_at, list_leases(rules))
    client = EdgeClient("s", lambda _: body, clocks)
    client.renew()
    moments = [issued_at, *find_instants(rules, scope, issued_at)]
    for place, near, question in asked:
        moment = max(issued_at, moments[place % len(moments)] + near)
        passed = (moment - issued_at).total_seconds()
        clocks.boot, clocks.wall = 100.0 + passed, moment
        case = (question.site, moment, question.version, question.key)
        rest = (question.episode, question.confidence, question.attributes)
        answer = client.decide(*case, *rest)
        wanted = client._decide_by_table(type(question)(*case, *rest))
        for name in FIELDS:
            assert getattr(answer, name) == getattr(wanted, name)
        assert abs(answer.lease - wanted.lease) <= 2 * MICROSECOND


def test_a_case_of_no_covered_time_is_left_to_a_human():
    rollout = autonomous()
    body = build_body(rollout.policy, rollout.scope, rollout.at, {"creek": MINUTE})
    late = rollout.at + 3 * DAY
    question = CaseQuestion("creek", late, "v1", "k9")
    answer = decide_locally(parse_snapshot(body), question, now=late, time_left=MINUTE)
    assert (answer.decider, answer.reason) == ("human", "the table has no such time")


def test_a_stage_is_counted_from_the_last_entrys_time_if_the_clock_is_behind_it():
    rollout = autonomous()
    ends = min(grant.until for grant in rollout.scope.cells[CREEK, "v1"].grants)
    scope, now = replace(rollout.scope, at=ends - 5 * MINUTE), ends - 9 * MINUTE
    body = build_body(rollout.policy, scope, now, {"creek": HOUR})
    question = CaseQuestion("creek", now, "v1", "k9")
    wanted = decide_assignment(scope, rollout.policy, SALT, question, now=now, time_left=MINUTE)
    assert wanted.decider == "model"
    for time_left in (HOUR, 7 * MINUTE, MINUTE):
        answer = decide_locally(parse_snapshot(body), question, now=now, time_left=time_left)
        assert answer.lease <= 5 * MINUTE
