"""Sets of labels over HTTP: asked, acted on by permit, reviewed, and stored once."""

from datetime import timedelta

import pytest

from tests.api.reviews.review_desk import ReviewDesk
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.review_room import POLICY, Room

BEARS = "/v1/rollouts/bears"
LEVERS = """levers:
  - {id: logos, labels: [puma, nike, ikea], many: true, overlap: 60%}
"""
FIELD = field.POLICY.replace(
    field.POLICY[field.POLICY.index("levers:") : field.POLICY.index("sites:")], LEVERS
)
ROOM = POLICY.replace(POLICY[POLICY.index("levers:") : POLICY.index("sites:")], LEVERS)


@pytest.fixture(name="model_decides")
def set_up_model(database, monkeypatch):
    """Let v1 decide in the cell creek by day."""
    monkeypatch.setattr("rollout.live.state_cache.measure_clock_skew", lambda *_: timedelta(0))
    field.set_up_field(database, policy=FIELD)
    field.widen(database, ("creek", "day"))


def act(client, sent_action, permit):
    """Send an action of the model; return its authorization."""
    case = {"kind": "case", "key": "c1", "site": "creek", "occurred_at": NOON.isoformat()}
    action = {"kind": "action", "key": "c1", "lever": "logos", "action": sent_action}
    action |= {"by": "model", "version": "v1", "at": NOON.isoformat(), "permit": permit}
    client.by("ingest").post(f"{BEARS}/records", json=[case, action])
    (stored,) = client.by("viewer").get(f"{BEARS}/cases/c1").json()["actions"]
    return stored["action"], stored["authorization"]


@pytest.mark.usefixtures("model_decides")
@pytest.mark.parametrize(
    ("sent_action", "found"),
    [
        (["puma", "nike"], ("nike;puma", "authorized")),
        (["puma", "nike", "ikea"], ("ikea;nike;puma", "unauthorized")),
        ([], ("(none of them)", "unauthorized")),
    ],
)
def test_an_action_is_judged_by_the_set_that_its_permit_is_bound_to(client, sent_action, found):
    question = field.question(prediction={"answers": {"logos": ["nike", "puma"]}})
    answer = client.by("ingest").post(f"{BEARS}/assignments", json=question).json()
    assert answer["decider"] == "model"
    assert act(client, sent_action, answer["permit"]) == found


@pytest.mark.usefixtures("model_decides")
def test_what_is_no_set_gets_a_sentence(client):
    decision = {"kind": "decision", "key": "c1", "reviewer": "ana"}
    prediction = {"kind": "prediction", "key": "c1", "version": "v1"}
    items = [
        decision | {"answers": {"logos": ["adidas"]}},
        prediction | {"answers": {"logos": ["adidas"]}},
    ]
    answers = client.by("ingest").post(f"{BEARS}/records", json=items).json()["items"]
    assert [item["status"] for item in answers] == ["rejected", "accepted"]
    assert "adidas is none of its labels (puma, nike, ikea)" in answers[0]["reason"]
    assert "adidas is no set of labels of logos, each once: kept" in answers[1]["reason"]


def test_reviewers_answer_with_lists_and_differences_are_adjudicated(database):
    text = ROOM.replace("VERDICTS", "1").replace("SECOND", "100%").replace("REVEAL", "never")
    desk = ReviewDesk(Room(database, text=text.replace("FURTHER", "outside: unknown")))
    desk.room.arrive("case-1", label=None)
    claimed = desk.post("ana", "/claims", {}).json()
    assert claimed["levers"][0]["many"] is True
    path = f"/{claimed['tasks'][0]['review']}/decision"
    bad = desk.post("ana", path, {"answers": {"logos": ["nike", "nike"]}})
    assert "nike is written twice; write each label once" in bad.json()["detail"]
    for wrong in (["nike;puma"], [""], ["(none of them)"]):
        assert desk.post("ana", path, {"answers": {"logos": wrong}}).status_code == 422
    stored = desk.post("ana", path, {"answers": {"logos": ["puma", "nike"]}})
    assert stored.json()["answers"] == {"logos": "nike;puma"}
    assert desk.post("ana", path, {"answers": {"logos": ["nike", "puma"]}}).json() == stored.json()
    (task,) = desk.take("bo")
    desk.post("bo", f"/{task['review']}/decision", {"answers": {"logos": []}})
    (conflict,) = desk.take("cy", kind="adjudicate")
    answers = [{"logos": "(none of them)"}, {"logos": "nike;puma"}]
    assert sorted(conflict["decisions"], key=str) == answers
    settled = desk.post("cy", f"/{conflict['review']}/decision", {"answers": {"logos": ["nike"]}})
    assert settled.json()["answers"] == {"logos": "nike"}
