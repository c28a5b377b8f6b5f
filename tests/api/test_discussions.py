"""Discussions over HTTP: ask, answer, link a case; who may still decide it blind reads nothing."""

import pytest

from rollout.core.scope.commands import OpenIncident
from rollout.core.scope.permissions import AssignedRole
from rollout.services.engine.command_handler import execute_command
from tests.api.bears import CREEK, LAKE, V1, founded, tick
from tests.api.review_desk import ReviewDesk
from tests.api.test_shell import problem_of
from tests.factories import NOON
from tests.services.review_room import DAY, START, Room, person
from tests.store.databases import on_sqlite

PROPOSAL, INCIDENT = f"{V1}/proposals/P-1/comments", f"{V1}/incidents/I-1/comments"


@pytest.fixture
def talked(database):
    """Return a rollout with a proposal and an incident at creek."""
    founded(database, NOON)
    tick(database, NOON, cells=(CREEK, LAKE))
    opened = OpenIncident(at=NOON, kind="unauthorized", reason="lens", cell=CREEK, version="v1")
    execute_command(database, "bears", lambda _: opened)


@pytest.mark.parametrize("path", [PROPOSAL, INCIDENT])
def test_a_question_gets_an_answer(client, talked, path):
    asked = client.by("viewer").post(path, json={"text": "Was the lens wet?"})
    assert asked.status_code == 201
    question = asked.json()
    assert (question["by"], question["case"], question["is_erased"]) == ("viewer", "", False)
    again = client.post(path, json={"text": "Was the lens wet?"})
    assert (again.status_code, again.json()) == (200, question)
    answer = {"text": "No", "answers": question["id"]}
    assert client.by("operator").post(path, json=answer).json()["answers"] == question["id"]
    found = client.by("viewer").get(path).json()
    assert [item["text"] for item in found["items"]] == ["Was the lens wet?", "No"]
    assert (found["hidden"], found["hidden_text"]) == (0, "")


def test_the_ledger_and_the_page_of_the_subject_have_no_text(client, talked):
    client.by("viewer").post(PROPOSAL, json={"text": "Was the lens wet?"})
    pages = ("/ledger?limit=50", "/ledger", "/proposals/P-1", "/incidents/I-1", "/proposals")
    for path in pages:
        answer = client.get(V1 + path)
        assert answer.status_code == 200
        assert "wet" not in answer.text
    assert "CommentAdded" in client.get(f"{V1}/ledger").text


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": "a" * 4_001}, 422, "refused"),
        ({"text": ""}, 422, "refused"),
        ({"text": "This one?", "case": "c-9"}, 404, "unknown-case"),
        ({"text": "No", "answers": 9_999}, 422, "refused"),
    ],
)
def test_what_cannot_be_stored_is_a_problem(client, talked, body, status, code):
    answer = client.by("viewer").post(PROPOSAL, json=body)
    assert problem_of(answer) == (status, code)
    assert client.get(PROPOSAL).json()["items"] == []


def test_other_places_and_other_callers_are_refused(client, door, talked):
    door.let_in("lee", AssignedRole("viewer", "bears", "lake"))
    door.let_in("sue", AssignedRole("viewer", "wolves"))
    door.let_in("box", AssignedRole("viewer", "bears"), machine=True)
    for path in (PROPOSAL, INCIDENT):
        for who, expected in (
            ("lee", (403, "not-allowed")),
            ("reviewer", (403, "not-allowed")),
            ("sue", (404, "unknown-rollout")),
        ):
            assert problem_of(client.by(who).get(path)) == expected
            assert problem_of(client.post(path, json={"text": "Why?"})) == expected
        assert client.by("box").get(path).status_code == 200
        assert problem_of(client.post(path, json={"text": "Why?"})) == (403, "not-allowed")
    lost = f"{V1}/proposals/I-1/comments"
    assert problem_of(client.by("viewer").get(lost)) == (404, "unknown-proposal")


def test_a_key_gets_the_stored_response(client, talked):
    headers = {"Idempotency-Key": "k-1"}
    first = client.by("viewer").post(PROPOSAL, json={"text": "Why?"}, headers=headers)
    client.post(PROPOSAL, json={"text": "And why there?"})
    again = client.post(PROPOSAL, json={"text": "Why?"}, headers=headers)
    assert (again.json(), again.headers["Idempotent-Replay"]) == (first.json(), "true")
    assert len(client.get(PROPOSAL).json()["items"]) == 2


@on_sqlite
@pytest.mark.parametrize("linked", ["lake-1", ""])
def test_who_may_still_decide_a_case_blind_reads_it_once_it_is_closed(database, linked):
    desk = ReviewDesk(Room(database))
    readers = {
        "eve": (AssignedRole("operator", "bears"), AssignedRole("reviewer", "bears", "lake")),
        "ola": (AssignedRole("operator", "bears"),),
    }
    desk.door.callers |= {name: person(name, *roles) for name, roles in readers.items()}
    opened = OpenIncident(at=START, kind="unauthorized", reason="lens", cell=None, version="v1")
    execute_command(database, "bears", lambda _: opened)
    desk.room.arrive("lake-1", site="lake")
    body = {"text": "v1 said bear", "case": linked}
    assert desk.client.by("ola").post(INCIDENT, json=body).status_code == 201
    blinded = desk.client.by("eve").get(INCIDENT)
    assert blinded.json()["items"] == []
    assert blinded.json()["hidden"] == 1
    assert "lake-1" not in blinded.text
    desk.later(DAY + DAY)
    assert [item["text"] for item in desk.client.get(INCIDENT).json()["items"]] == ["v1 said bear"]
