"""A model's account that ends the draw of an episode at a case of which it is sure."""

from datetime import timedelta

import pytest

from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.factories import DAY, MINUTE, NOON

pytestmark = pytest.mark.slow

EPISODES, CASES = 40, 3
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence:
  unit: episode
  grace: 1h
  sources: {accounts: [{account: people, reviewers: [r*]}], cases: [camera]}
gates: [{to: supervised, require: [{measure: agreement, at_least: 80%}]}]
"""


@pytest.fixture
def send(client, door, database, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    for name, role in (("box", "ingest"), ("camera", "ingest"), ("people", "ingest-decisions")):
        door.let_in(name, AssignedRole(role), machine=True)
    apply_policy(database, POLICY, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32))

    def send_records(account, kind, number, **fields):
        items = [
            {"kind": kind, "key": f"{episode}-{number}"}
            | ({"episode": f"{episode}"} if kind == "case" else {})
            | fields
            for episode in range(EPISODES)
        ]
        path = "/v1/rollouts/ramps/records"
        answers = client.by(account).post(path, json=items).json()["items"]
        assert {answer["status"] for answer in answers} == {"accepted"}

    return send_records


def decide(send, account, number, answer, reviewer):
    fields = {"reviewer": reviewer, "answers": {"parcel": answer}, "exposure": "blind"}
    send(account, "decision", number, **fields)


@pytest.mark.parametrize("by", ["nobody", "box", "a clerk", "outcome", "r1"])
def test_only_a_source_of_evidence_ends_the_draw_of_an_episode(send, client, database, clock, by):
    """The model is right about the first case of each episode alone, and its account knows that."""

    def register(number):
        clock.advance(timedelta(seconds=1))
        at = clock.now().isoformat()
        send("camera", "case", number, site="ramp-a", occurred_at=at)
        send("box", "prediction", number, version="v1", answers={"parcel": "sound"})

    register(0)
    clock.advance(timedelta(seconds=1))
    if by == "outcome":
        answers = {"parcel": "sound"}
        send("box", "outcome", 0, answers=answers, at=clock.now().isoformat())
    elif by != "nobody":
        decide(send, "box" if by == "box" else "people", 0, "sound", by.replace("box", "x"))
    for number in range(1, CASES):
        register(number)
    clock.advance(MINUTE)
    for number in range(CASES):
        decide(send, "people", number, "damaged" if number else "sound", "r2")
    clock.advance(3 * 60 * MINUTE)
    Ticker(database, "ramps", "one").tick(clock.now())
    (cell,) = client.by("viewer").get("/v1/rollouts/ramps/cells/ramp-a/always").json()["evidence"]
    (condition,) = cell["gate"]["conditions"]
    agreeing, others = condition["counts"]
    assert agreeing + others == EPISODES
    assert (agreeing == EPISODES) == (by == "r1")
    assert by == "r1" or agreeing <= EPISODES / 2
