"""A client's compiled snapshot answers as the rules do, by both clocks, and is void at once."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.kernel.calendar.instants import Window
from rollout.kernel.policy.policy import EvidenceRules
from rollout_client import client as client_module
from rollout_client.prepared_answers import PreparedAnswers
from rollout_client.questions import LocalQuestion
from tests.client.edge_clients import (
    BEFORE,
    OPEN,
    STOPPED,
    MovableClocks,
    ask,
    build_scope_body,
    create_client,
)
from tests.factories import HOUR, NOON, autonomous, policy
from tests.properties import examples

MICROSECOND = timedelta(microseconds=1)
ROLLOUTS = [
    OPEN,
    STOPPED,
    autonomous(policy(lease=12 * HOUR)),
    autonomous(policy(evidence=EvidenceRules(confidence_floor=0.8))),
    autonomous(policy(windows=(Window("day", when={"w": ("dry",)}), Window("night")))),
]
MOVES = st.tuples(
    st.sampled_from([0, 1e-6, 0.5, 19.5, 20, 59.93, 59.94, 60, 8 * 3600 - 60, -1]),
    st.sampled_from([0, 0, 0, 0.4, -0.999, -1, -1.001, 60, 61]),
)


@examples(
    given(
        st.sampled_from(ROLLOUTS),
        st.sampled_from([1.0, 60.0, 3600.0, 12 * 3600.0]),
        st.lists(
            st.tuples(
                MOVES,
                st.sampled_from(["creek", "lake", "moon"]),
                st.integers(0, 20).map(str),
                st.sampled_from(["v1", "v1", "v2"]),
                st.sampled_from([None, {"w": "dry"}]),
            ),
            min_size=1,
            max_size=8,
        ),
    ),
    fast=60,
    whole=300,
)
def test_a_compiled_snapshot_answers_as_the_rules_by_both_clocks(rollout, lease, asked):
    clocks = MovableClocks()
    client = create_client(build_scope_body(rollout, lease=timedelta(seconds=lease)), clocks=clocks)
    client.renew()
    for (passed, set_by), site, key, version, attributes in asked:
        clocks.move(passed)
        clocks.wall += timedelta(seconds=set_by)
        at = NOON + HOUR + timedelta(seconds=clocks.boot - 100)
        case = {"confidence": 0.9, "attributes": attributes}
        answer = client.decide(site, at, version, key, **case)
        wanted = client._decide_by_table(LocalQuestion(site, at, version, key, **case))
        for name in ("decider", "stage", "exposure", "share", "reason", "revision"):
            assert getattr(answer, name) == getattr(wanted, name)
        assert answer.lease <= wanted.lease + 2 * MICROSECOND
        assert (
            answer.lease >= wanted.lease - 2 * MICROSECOND or lease > rollout.policy.lease.seconds
        )


def test_the_rest_of_a_lease_is_computed_when_it_is_read():
    clocks = MovableClocks()
    client = create_client(BEFORE, clocks=clocks)
    client.renew()
    answer = ask(client)
    assert answer.lease == pytest.approx(timedelta(seconds=59.94), abs=MICROSECOND)
    clocks.move(20)
    assert answer.lease == pytest.approx(timedelta(seconds=39.94), abs=MICROSECOND)
    clocks.wall -= timedelta(seconds=22)
    assert answer.lease == timedelta(0)
    clocks.wall += timedelta(seconds=22)
    clocks.move(40)
    assert answer.lease == timedelta(0)
    clocks.boot = None
    assert answer.lease == timedelta(0)


def test_a_table_compiled_while_the_wall_clock_was_ahead_is_right_once_it_is_set():
    clocks = MovableClocks()
    client = create_client(BEFORE, clocks=clocks)
    client.renew()
    clocks.move(20)
    clocks.wall += timedelta(seconds=61)
    assert ask(client).reason == "the lease has ended"
    clocks.wall -= timedelta(seconds=61)
    assert ask(client).lease == pytest.approx(timedelta(seconds=39.94), abs=MICROSECOND)


def test_a_question_after_the_first_reads_both_clocks_once_and_no_rule(monkeypatch):
    clocks = MovableClocks()
    client = create_client(BEFORE, clocks=clocks)
    client.renew()
    clocks.move(1)  # past the instant of the last ledger entry
    reads, read_seconds = [], MovableClocks.read_seconds
    monkeypatch.setattr(
        MovableClocks, "read_seconds", lambda self: reads.append(1) or read_seconds(self)
    )
    first = ask(client)
    reads.clear()
    monkeypatch.setattr(client_module, "LocalQuestion", None)  # the table is not asked
    monkeypatch.setattr(MovableClocks, "read", None)
    for _ in range(10):
        clocks.move(1)
        assert ask(client) is first
    assert len(reads) == 10


def test_a_renewal_that_stops_voids_the_table():
    stopped = build_scope_body(STOPPED)
    client = create_client(BEFORE, stopped)
    client.renew()
    client.clocks.move(1)
    assert ask(client).decider == "model"
    former = client._present
    client.renew()
    assert "stopped" in ask(client).reason
    assert former
    assert client._present is not former


def test_a_hand_over_while_the_table_is_compiled_voids_it(monkeypatch):
    client = create_client(BEFORE)
    client.renew()
    client.clocks.move(1)
    prepare = PreparedAnswers.find_present

    def hand_over_meanwhile(*args):
        entry = prepare(*args)
        client.hand_over()
        return entry

    monkeypatch.setattr(PreparedAnswers, "find_present", hand_over_meanwhile)
    assert ask(client).reason == "handed over to a human until a newer scope is read"
    monkeypatch.undo()
    assert ask(client).reason == "handed over to a human until a newer scope is read"


def test_a_client_without_the_salt_or_a_boot_clock_compiles_nothing():
    clocks = MovableClocks()
    without_salt = create_client(build_scope_body(OPEN, salt=None), clocks=clocks)
    without_salt.renew()
    assert (ask(without_salt).decider, without_salt._prepared) == ("human", None)
    clocks.boot = None
    without_clock = create_client(BEFORE, clocks=clocks)
    without_clock.renew()
    answer = ask(without_clock)
    assert (answer.decider, answer.lease, without_clock._prepared) == ("human", timedelta(0), None)
