"""A hostile key names versions: those that act go on, and an operator has a way out."""

from datetime import timedelta

import pytest

from rollout.engine.decide.permissions import AssignedRole
from tests.api.bears import tick
from tests.factories import NOON
from tests.features import bear_field as field

BEARS = "/v1/rollouts/bears"


@pytest.fixture(autouse=True)
def _bears(database, monkeypatch):
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.autonomous(database)


def predict(client, version, key="c1"):
    said = {"kind": "prediction", "key": key, "version": version, "answers": {"alarm": "bear"}}
    (answer,) = client.by("ingest").post(f"{BEARS}/records", json=[said]).json()["items"]
    return answer["status"]


def asked(client, version="v1"):
    question = field.question(version=version)
    return client.by("ingest").post(f"{BEARS}/assignments", json=question).json()["decider"]


def flood(client):
    said = [
        {"kind": "prediction", "key": "c1", "version": f"x{n}", "answers": {"alarm": "bear"}}
        for n in range(50)
    ]
    items = client.by("ingest").post(f"{BEARS}/records", json=said).json()["items"]
    return [item["status"] for item in items]


def test_a_flood_of_versions_leaves_the_acting_one_as_it_was(client):
    assert asked(client) == "model"
    assert flood(client).count("accepted") == 19
    for n in range(50, 80):
        assert asked(client, f"x{n}") == "human"
    assert asked(client) == "model"
    assert predict(client, "v1") == "accepted"


def test_an_operator_makes_room_for_a_version_that_was_kept_out(client, door, database, clock):
    flood(client)
    tick(database, NOON, cells=())  # with the next one they stand in the ledger
    assert predict(client, "v2") == "rejected"
    door.let_in("eve", AssignedRole("operator"), AssignedRole("viewer"))
    there = client.by("eve").get(f"{BEARS}/versions").json()["items"]
    strangers = [one["version"] for one in there if one["version"].startswith("x")]
    assert len(strangers) == 19
    for name in strangers:
        path = f"{BEARS}/versions/{name}/retirement"
        assert client.by("eve").post(path, json={}).status_code == 200
    clock.advance(timedelta(seconds=1))  # a replica knows of it after half a second
    assert predict(client, "v2") == "accepted"
    assert asked(client) == "model"
