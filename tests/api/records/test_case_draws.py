"""A version with a sample decides drawn cases only, and a case is drawn once it is stored."""

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.engine.decide.assignment import NOT_DRAWN, SAMPLE, UNKNOWN_DRAW, Permit
from rollout.features.assignments.assignments import LOCAL
from rollout.kernel.statistics.sampling import compute_sampling_value
from tests.api.access.test_permission_afterwards import action, answer_to, permission, prediction
from tests.api.assignments.autonomous_bears import clocks_agree
from tests.api.assignments.test_assignments import URL, ask, predicted
from tests.factories import DAY, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["clocks_agree"]

POLICY = f"{field.POLICY}versions: [{{id: v1, sample: 50%}}]\n"
RECORDS = "/v1/rollouts/bears/records"


@pytest.fixture
def bears(database):
    field.set_up_field(database, NOON - DAY, policy=POLICY)
    field.widen(database, ("creek", "day"), at=NOON - DAY)


@pytest.fixture
def drawn_keys(database, bears):
    """Return keys that the sample has, and others."""
    with database.begin_read() as transaction:
        salt = Rollouts(transaction).find("bears").service_salt
    drawn = {
        key: compute_sampling_value(salt, SAMPLE, "v1", key) < 0.5 for key in field.keys(1.0)[:50]
    }
    return [key for key in drawn if drawn[key]], [key for key in drawn if not drawn[key]]


def send_case(client, key):
    body = {"kind": "case", "key": key, "site": "creek", "occurred_at": NOON.isoformat()}
    (result,) = client.by("ingest").post(RECORDS, json=[body]).json()["items"]
    return result


def test_case_result_names_versions_and_question_of_stored_case_says_whether_it_is_drawn(
    client, drawn_keys
):
    (drawn, *_), (undrawn, *_) = drawn_keys
    results = [send_case(client, key) for key in (drawn, undrawn)]
    assert [result["drawn"] for result in results] == [["v1"], []]
    told = ask(client, drawn)
    assert (told.decider, told.drawn) == ("model", True)
    told = ask(client, undrawn)
    assert (told.decider, told.drawn, told.reason) == ("human", False, NOT_DRAWN)


def test_question_without_case_or_prediction_tells_nothing_of_the_draw(client, drawn_keys):
    answers = [ask(client, key) for keys in drawn_keys for key in keys[:3]]
    assert {(told.decider, told.drawn, told.reason) for told in answers} == {
        ("human", None, UNKNOWN_DRAW)
    }


def test_question_with_prediction_stores_its_case_and_is_answered_by_its_draw(client, drawn_keys):
    (drawn, *_), (undrawn, *_) = drawn_keys
    told = ask(client, drawn, prediction=predicted())
    assert (told.decider, told.drawn, told.recorded.status) == ("model", True, "accepted")
    told = ask(client, undrawn, prediction=predicted())
    assert (told.decider, told.drawn, told.recorded.status) == ("human", False, "accepted")
    assert send_case(client, drawn)["drawn"] == ["v1"]  # sent again


def test_other_versions_and_policies_without_samples_have_no_draw(client, bears):
    assert ask(client, version="v2").drawn is None
    body = {"kind": "heartbeat", "site": "creek", "at": NOON.isoformat()}
    (result,) = client.by("ingest").post(RECORDS, json=[body]).json()["items"]
    assert "drawn" not in result


def test_snapshot_lets_no_client_decide_for_a_version_with_a_sample(client, bears):
    body = client.by("ingest").get("/v1/rollouts/bears/scope", params={"form": "table-1"}).json()
    (cell,) = [cell for cell in body["table"]["sites"][0]["cells"] if cell["window"] == 0]
    answer = body["table"]["answers"][cell["shadow"]]
    assert (cell["version"], cell["spans"]) == ("", [])
    assert (answer["decider"], answer["reason"]) == ("human", UNKNOWN_DRAW)


def test_batch_answers_each_question_by_its_own_version(client, drawn_keys):
    (drawn, *_), (undrawn, *_) = drawn_keys
    for key in (drawn, undrawn):
        send_case(client, key)
    asked = [field.question(drawn), field.question(undrawn), field.question(drawn, version="v2")]
    answers = client.by("ingest").post(URL, json={"questions": asked}).json()["answers"]
    assert [(a["decider"], a["drawn"]) for a in answers] == [
        ("model", True),
        ("human", False),
        ("human", None),
    ]


def test_act_of_client_that_decided_locally_is_unauthorized_and_one_that_asked_is_not(
    client, service, drawn_keys
):
    (local, by_question, *_), _ = drawn_keys
    for key in (local, by_question):
        send_case(client, key)
    told = ask(client, by_question, prediction=predicted())
    assert told.decider == "model"
    own = Permit(LOCAL, told.revision, NOON, MINUTE)
    permit = service.permit_signer.sign(own, "bears", "creek")
    answer_to(client, prediction(local), action(permit, local), action(told.permit, by_question))
    assert permission(client, local) == "unauthorized"
    assert permission(client, by_question) == "authorized"
