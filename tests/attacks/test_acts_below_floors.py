"""A cell that is open from a confidence floor on: no door lets a case below it through."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rollout.engine.events import Narrowed
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import UNSURE, Trigger
from rollout_client.client import EdgeClient
from tests.api.field_box import (
    BEARS,
    action,
    case,
    permissions,
    prediction,
    request_permit,
    send,
    steady,
)
from tests.api.records.test_acted_before import CASE_CAME_LATER, CASE_CORRECTED_LATER
from tests.attacks.test_acts_that_nobody_asked_for import incidents
from tests.client.edge_clients import MovableClocks
from tests.data.databases import on_sqlite
from tests.factories import DAY, NOON
from tests.features import bear_field as field

__all__ = ["steady"]
SECOND = timedelta(seconds=1)
FLOORS = field.POLICY.replace(
    "{unit: case}", "{unit: case, confidence_floors: [0%, 60%, 80%, 97%]}"
)
STRICT, LOW = ("0.8", "0.97"), ("0.6", "0.8", "0.97")


@pytest.fixture
def world(database):
    """Let creek be autonomous from .8 on, lake from .6 on."""
    field.set_up_field(database, policy=FLOORS)
    for site, floors in (("creek", STRICT), ("lake", LOW)):
        for stage in ("supervised", "autonomous"):
            widened = field.build_widening((site, "day"), stage, at=NOON - DAY)
            field.append(database, replace(widened, confidence_floors=floors))


def raise_floor(database, floor="0.97", site="creek"):
    """Append what an alarm at noon does to a cell's floor."""
    narrowed = Narrowed(
        at=NOON,
        by="policy",
        cell=Cell(site, "day"),
        version="v1",
        from_stage="autonomous",
        to_stage="autonomous",
        guard="agreement",
        confidence_floor=floor,
    )
    field.append(database, narrowed)


def ask(client, key="c1", **more):
    return client.by("ingest").post(f"{BEARS}/assignments", json=field.question(key, **more)).json()


def ask_flag(client, confidence, key="c1"):
    context = {"targetingKey": key, "confidence": confidence, **field.question(key)}
    body = {"context": {name: value for name, value in context.items() if value is not None}}
    path = "/ofrep/v1/evaluate/flags/gate.bears.decider"
    return client.by("ingest").post(path, json=body).json()["value"]


def open_box(client):
    """Return a client's box at creek that has just read the scope."""
    clocks = MovableClocks(wall=NOON)
    box = EdgeClient(
        "creek",
        lambda _: client.by("ingest").get(f"{BEARS}/scope?form=table-1").json(),
        clocks,
    )
    box.renew()
    clocks.move(0.01)
    return box


def list_deciders(client, confidence):
    """Return who decides by the service, by OFREP and by a client's snapshot."""
    local = open_box(client).decide("creek", NOON, "v1", "c1", confidence=confidence)
    return [
        ask(client, confidence=confidence)["decider"],
        ask_flag(client, confidence),
        local.decider,
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("world")
def test_below_the_floor_of_its_cell_every_door_says_a_person_decides(client):
    for confidence, decider in ((None, "human"), (0.79, "human"), (0.8, "model"), (1.0, "model")):
        assert list_deciders(client, confidence) == [decider] * 3
    below = ask(client, confidence=0.79)
    assert (below["stage"], below["exposure"]) == ("autonomous", "blind")
    assert below["reason"] == "below the confidence floor"
    assert ask(client, site="lake", confidence=0.7)["decider"] == "model"


@on_sqlite
@pytest.mark.usefixtures("world")
def test_an_alarm_raises_the_floor_at_every_door(client, database, clock):
    assert list_deciders(client, 0.9) == ["model"] * 3
    raise_floor(database)
    clock.advance(2 * SECOND)  # a replica's answers may be a second old
    assert list_deciders(client, 0.9) == ["human"] * 3
    assert list_deciders(client, 0.97) == ["model"] * 3


@on_sqlite
@pytest.mark.usefixtures("world")
def test_an_action_is_judged_by_the_floor_of_its_case_and_not_by_the_lowest(client, database):
    bound = {"answers": {"alarm": "bear"}}
    sure = request_permit(client, prediction=bound, confidence=0.9)
    send(client, action(sure))
    assert permissions(client) == ["authorized"]
    lied = request_permit(client, "c2", confidence=0.9)
    send(client, case("c2"), prediction("c2", confidence=0.7), action(lied, "c2"))
    assert permissions(client, "c2") == ["unauthorized"]
    assert incidents(database) == [("c2", Trigger(UNSURE, {}))]
    other = request_permit(client, "c3", site="lake", confidence=0.7)
    send(client, case("c3", "lake"), prediction("c3", confidence=0.7), action(other, "c3"))
    assert permissions(client, "c3") == ["authorized"]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_an_early_action_is_judged_by_the_floor_once_its_case_comes(client, database):
    for key, confidence in (("c1", 0.7), ("c2", 0.9)):
        permit = request_permit(client, key, confidence=0.9)
        send(client, prediction(key, confidence=confidence), action(permit, key))
        assert send(client, case(key))[0]["status"] == "accepted"
    assert incidents(database) == [("c1", CASE_CAME_LATER)]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_case_that_is_moved_to_a_stricter_cell_is_judged_there(client, database):
    for key, confidence in (("c1", 0.7), ("c2", 0.9)):
        asked = {"answers": {"alarm": "bear"}}
        parts = {"site": "lake", "prediction": asked, "confidence": confidence}
        permit = request_permit(client, key, **parts)
        send(client, action(permit, key))
        assert permissions(client, key) == ["authorized"]
        send(client, case(key, "creek", revision=2))
    assert incidents(database) == [("c1", CASE_CORRECTED_LATER)]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_prediction_that_is_made_surer_after_the_action_covers_nothing(client, database, clock):
    bound = {"prediction": {"answers": {"alarm": "bear"}}, "site": "lake", "confidence": 0.7}
    permits = {"c1": request_permit(client, "c1", **bound)}
    permits["c2"] = request_permit(client, "c2", site="lake", confidence=0.7)
    send(client, prediction("c2", confidence=0.7))
    for key, permit in permits.items():
        send(client, action(permit, key))
    clock.advance(SECOND)
    for key in permits:
        send(client, prediction(key, confidence=0.95, revision=2))
        send(client, case(key, "creek", revision=2 if key == "c1" else 1))
    assert incidents(database) == [
        ("c1", CASE_CORRECTED_LATER),
        ("c2", CASE_CAME_LATER),
    ]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_snapshots_permit_is_judged_by_the_floor_too(client, database):
    box = open_box(client)
    send(client, case(), prediction(confidence=0.7), action(box.permit))
    send(client, case("c2"), prediction("c2", confidence=0.8), action(box.permit, "c2"))
    assert [permissions(client, key) for key in ("c1", "c2")] == [["unauthorized"], ["authorized"]]
    assert incidents(database) == [("c1", Trigger(UNSURE, {}))]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_within_its_lease_an_answer_holds_at_the_floor_that_it_was_given_at(
    client, database, clock
):
    permits = {key: request_permit(client, key, confidence=0.9) for key in ("c1", "c2")}
    raise_floor(database)
    clock.advance(30 * SECOND)
    for key, confidence in (("c1", 0.9), ("c2", 0.7)):
        act = action(permits[key], key, at=NOON + 20 * SECOND)
        send(client, case(key), prediction(key, confidence=confidence), act)
    found = [permissions(client, key) for key in ("c1", "c2")]
    assert found == [["authorized_within_lease"], ["unauthorized"]]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_case_below_the_floor_goes_to_a_person_who_decides_blind(client):
    found = []
    for key, confidence in (("c2", 0.9), ("c1", 0.7)):
        send(client, case(key), prediction(key, confidence=confidence))
        claimed = client.by("ana").post(f"{BEARS}/reviews/claims", json={"claims": 5}).json()
        found.append([task["kind"] for task in claimed["tasks"]])
    assert found == [[], ["blind"]]
