"""OFREP: doubt is an answer and never an error, and clients as they are can read what is sent."""

import json
from datetime import timedelta

import pytest
from jsonschema import Draft202012Validator

from api.assignments import ofrep
from rollout.engine.decide.assignment_table import IssuedHead, sign_head
from rollout.engine.decide.permissions import AssignedRole
from tests.api.assignments.autonomous_bears import bears, clocks_agree
from tests.api.assignments.test_assignments import ALONE, OTHER
from tests.data.databases import on_sqlite
from tests.factories import DAY, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["bears", "clocks_agree"]

URL = "/ofrep/v1/evaluate/flags"
# As the protocol's `evaluationSuccess`, with `anyOf` for its `oneOf`: as it stands (0.3.0) the
# branch without a value matches everything, so that every answer with a value is invalid.
SUCCESS = {
    "type": "object",
    "required": ["key", "reason", "variant", "metadata"],
    "properties": {
        "key": {"type": "string"},
        "reason": {"enum": ["STATIC", "TARGETING_MATCH", "SPLIT", "DISABLED", "UNKNOWN"]},
        "variant": {"type": "string"},
        "metadata": {"additionalProperties": {"type": ["boolean", "string", "number"]}},
    },
    "anyOf": [
        {"properties": {"value": {"type": kind}}, "required": ["value"]}
        for kind in ("boolean", "string", "integer", "number", "object")
    ],
}


def context(key=ALONE, **changed):
    said = {"targetingKey": key, "site": "creek", "at": NOON.isoformat(), "version": "v1"}
    return {"context": {k: v for k, v in (said | changed).items() if v is not None}}


def evaluate(client, facet="decider", key=ALONE, by="ingest", **changed):
    answer = client.by(by).post(f"{URL}/gate.bears.{facet}", json=context(key, **changed))
    assert answer.status_code == 200, answer.text
    Draft202012Validator(SUCCESS).validate(answer.json())
    return answer.json()


def test_the_head_of_the_metadata_comes_back_in_the_context(client, service, database, bears):
    head = evaluate(client)["metadata"]["ledger_head"]
    assert head.startswith("bears:")
    assert evaluate(client, ledger_head=head)["value"] == "model"
    forged = head.replace("bears:", "bears:9")
    assert evaluate(client, ledger_head=forged)["value"] == "human"
    assert evaluate(client)["value"] == "model"
    for ignored in ("ramps:" + head.removeprefix("bears:"), "41", "bears:x:y:z", 7):
        assert evaluate(client, ledger_head=ignored)["value"] == "model"


def test_a_lost_head_in_a_context_stops_everybody(client, service, bears):
    key = service.permit_signer.load_signing_key()
    head = IssuedHead("bears", 1, 99, "f" * 64)
    lost = f"bears:99:{head.hash}:{sign_head(head, key.secret, key.number)}"
    assert evaluate(client, ledger_head=lost)["value"] == "human"
    assert evaluate(client)["value"] == "human"


def test_the_model_decides_where_it_was_allowed_to(client, service, bears):
    told = evaluate(client)
    assert (told["value"], told["variant"], told["reason"]) == ("model", "model", "SPLIT")
    about = told["metadata"]
    assert (about["lease"], about["stage"]) == (60.0, "autonomous")
    assert about["fresh_until"] == (NOON + MINUTE).isoformat()
    assert (
        service.permit_signer.read_permit(about["permit"], "bears", ALONE, "v1").decider == "model"
    )


def test_after_the_first_flag_the_database_is_not_asked(client, service, monkeypatch, bears):
    first = evaluate(client)
    assert first["value"] == "model"

    def refuse(*_):
        raise AssertionError("the database was asked")

    monkeypatch.setattr("api.assignments.ofrep.answer_questions", refuse)
    assert evaluate(client)["value"] == "model"
    assert evaluate(client, key=OTHER, facet="audit-rate")["value"] == 0.1


@on_sqlite
@pytest.mark.parametrize(
    ("facet", "alone", "shadow"),
    [
        ("decider", "model", "human"),
        ("model-may-act", True, False),
        ("audit-rate", 0.1, 0.0),
        ("stage", 2, 0),
    ],
)
def test_each_companion_has_a_type_of_its_own(client, bears, facet, alone, shadow):
    found = [evaluate(client, facet), evaluate(client, facet, OTHER)]
    found.append(evaluate(client, facet, site="moon"))
    values = [told["value"] for told in found]
    assert values == [alone, alone, shadow]
    assert {type(value) for value in values} == {type(alone)}


@on_sqlite
def test_a_rate_is_that_of_the_answer_though_its_scope_ages_meanwhile(
    client, service, monkeypatch, bears
):
    """Seen: rate 0.0 beside `decider: model`, by which a client skips the audit."""
    evaluate(client)
    answer_from_memory = ofrep.answer_from_memory

    def answer_and_age(*question):
        answers = answer_from_memory(*question)
        monkeypatch.setattr(type(service.state_cache), "find_cached", lambda *_: None)
        return answers

    monkeypatch.setattr(ofrep, "answer_from_memory", answer_and_age)
    told = evaluate(client, "audit-rate")
    assert (told["value"], told["metadata"]["decider"]) == (0.1, "model")


@on_sqlite
def test_a_prediction_takes_its_assignment_from_the_decision(client, bears):
    answer = evaluate(client, "decision")
    fields = {name: answer["value"][name] for name in ("decider", "exposure", "share")}
    fields["scope_revision"] = answer["metadata"]["revision"]
    case = {"kind": "case", "key": ALONE, "site": "creek", "occurred_at": NOON.isoformat()}
    prediction = {"kind": "prediction", "key": ALONE, "version": "v1", "answers": {}} | fields
    sent = client.by("ingest").post("/v1/rollouts/bears/records", json=[case, prediction])
    assert [item["reason"] for item in sent.json()["items"]] == ["", ""]
    (stored,) = client.by("viewer").get(f"/v1/rollouts/bears/cases/{ALONE}").json()["predictions"]
    assert {name: stored[name] for name in fields} == fields


@on_sqlite
def test_the_whole_decision_is_an_object(client, bears):
    value = evaluate(client, "decision")["value"]
    assert (value["decider"], value["stage_level"]) == ("model", 2)


@on_sqlite
def test_floats_have_a_point_and_integers_none(client, bears):
    body = client.by("ingest").post(f"{URL}/gate.bears.audit-rate", json=context(site="moon"))
    assert '"value":0.0,' in body.text
    body = client.post(f"{URL}/gate.bears.stage", json=context())
    assert '"value":2,' in body.text


@on_sqlite
@pytest.mark.parametrize(
    "changed",
    [
        {"site": None},
        {"site": "moon"},
        {"site": 5},
        {"at": None},
        {"at": "noon"},
        {"at": "2027-06-01T12:00:00"},
        {"at": (NOON - DAY).isoformat()},
        {"version": None},
        {"version": "v9"},
    ],
)
def test_doubt_is_the_answer_human_and_never_an_error(client, bears, changed):
    told = evaluate(client, **changed)
    assert (told["value"], told["variant"], told["reason"]) == ("human", "human", "STATIC")
    assert told["metadata"]["reason"]


@on_sqlite
def test_a_site_that_one_may_not_ask_about_is_a_persons(client, door, bears):
    door.let_in("box", AssignedRole("ingest", "bears", "lake"), machine=True)
    assert evaluate(client, by="box", site="lake")["value"] == "model"
    told = evaluate(client, by="box")
    assert (told["value"], told["metadata"]["lease"]) == ("human", 0.0)


@on_sqlite
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "PARSE_ERROR"),
        (b"{", "PARSE_ERROR"),
        (b"\xff", "PARSE_ERROR"),
        (b"[]", "INVALID_CONTEXT"),
        (b'{"context": 5}', "INVALID_CONTEXT"),
        (b"{}", "TARGETING_KEY_MISSING"),
        (b'{"context": {}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": 5}}', "TARGETING_KEY_MISSING"),
        (json.dumps({"context": {"targetingKey": "k" * 201}}).encode(), "INVALID_CONTEXT"),
        (json.dumps({"context": {f"a{n}": "" for n in range(1_001)}}).encode(), "INVALID_CONTEXT"),
        (json.dumps({"context": {"a": "x" * 2**21}}).encode(), "INVALID_CONTEXT"),
    ],
)
def test_a_body_of_another_form_is_400_with_details(client, bears, body, code):
    for url in (URL, f"{URL}/gate.bears.decider"):
        answer = client.by("ingest").post(url, content=body)
        assert (answer.status_code, answer.json()["errorCode"]) == (400, code)
        assert answer.json()["errorDetails"]
    assert answer.json()["key"] == "gate.bears.decider"


@on_sqlite
@pytest.mark.parametrize(
    "key", ["gate.bears.nothing", "gate.none.decider", "bears", "a/b", "gate.é.decider", " "]
)
def test_a_flag_that_is_not_there_is_404(client, bears, key):
    answer = client.by("ingest").post(f"{URL}/{key}", json=context())
    assert (answer.status_code, answer.json()["errorCode"]) == (404, "FLAG_NOT_FOUND")
    assert answer.json()["key"] == key


@on_sqlite
def test_who_may_not_ask_is_refused(client, door, bears):
    door.let_in("eve", AssignedRole("ingest", "other"), machine=True)
    url = f"{URL}/gate.bears.decider"
    assert client.by("eve").post(url, json=context()).status_code == 404
    assert client.by("viewer").post(url, json=context()).status_code == 403
    del client.headers["Authorization"]
    assert client.post(url, json=context()).status_code == 401
    assert client.post(url, json=context(), headers={"X-API-Key": "ingest"}).status_code == 200
    wrong = {"X-API-Key": "nobody's"}
    assert client.post(url, json=context(), headers=wrong).status_code == 401


def test_all_flags_come_at_once_and_the_same_are_not_sent_again(client, database, clock, bears):
    first = client.by("ingest").post(URL, json=context())
    flags = {flag["key"]: flag["value"] for flag in first.json()["flags"]}
    assert len(flags) == 5
    assert flags["gate.bears.model-may-act"] is True
    tag = {"If-None-Match": first.headers["etag"]}
    clock.advance(timedelta(seconds=1))
    again = client.post(URL, json=context(), headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    elsewhere = client.post(URL, json=context(site="dale"), headers=tag)
    assert elsewhere.status_code == 200  # the same case key at a site where people decide
    field.stop(database, ("creek", "day"))
    clock.advance(timedelta(seconds=1))
    assert client.post(URL, json=context(), headers=tag).status_code == 200


@on_sqlite
def test_who_may_ask_about_nothing_gets_no_flags(client, bears):
    assert client.by("viewer").post(URL, json=context()).json() == {"flags": []}


@on_sqlite
@pytest.mark.parametrize(
    ("hints", "status"),
    [
        ({"flagConfigEtag": '"x"', "flagConfigLastModified": "1811851200"}, 200),
        ({"flagConfigLastModified": NOON.isoformat()}, 200),
        ({"flagConfigLastModified": ""}, 400),
        ({"flagConfigLastModified": "soon"}, 400),
    ],
)
def test_hints_of_an_event_stream_are_taken_or_refused(client, bears, hints, status):
    answer = client.by("ingest").post(URL, json=context(), params=hints)
    assert answer.status_code == status


@pytest.mark.slow
@on_sqlite
def test_the_operations_have_examples(client, bears):
    paths = client.get("/openapi.json").json()["paths"]
    for url in (URL, f"{URL}/{{key}}"):
        body = paths[url]["post"]["requestBody"]["content"]["application/json"]["schema"]
        answer = client.by("ingest").post(f"{URL}/gate.bears.decider", json=body["example"])
        assert answer.status_code == 200
