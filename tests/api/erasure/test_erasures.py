"""Erasing and exporting over HTTP, with real accounts."""

import json
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from rollout.data.access.users import SecondFactors, Users
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from tests.api.access.test_people_routes import as_ada, as_bo, browser, house, service
from tests.factories import NOON
from tests.features.erasure.test_name_erasure import fill
from tests.features.erasure.traces import find_traces
from tests.features.houses import ADA, chance

__all__ = ["as_ada", "as_bo", "browser", "house", "service"]
REASON = {"reason": "request 12"}


@pytest.fixture
def filled(database):
    fill(database)
    return database


def build_headers(database, name):
    made = keys.create_key(database, ADA, name, random_bytes=chance(), at=NOON)
    return {"Authorization": f"Bearer {made.text}"}


@pytest.mark.slow
def test_an_admin_erases_a_case_and_a_user(filled, browser):
    headers = build_headers(filled, "ada")
    body = {"kind": "case", "key": "c-0", **REASON}
    answer = browser.post("/v1/rollouts/ramps/erasures", json=body, headers=headers)
    assert (answer.status_code, answer.json()["cases"]) == (200, 1)
    again = browser.post("/v1/rollouts/ramps/erasures", json=body, headers=headers).json()
    assert (again["cases"], again["rows"]) == (0, 0)
    answer = browser.post("/v1/users/rosalind/erasure", json=REASON, headers=headers)
    assert answer.status_code == 200
    assert find_traces(filled, "rosalind") == find_traces(filled, "c-0") == []


def test_a_page_of_users_goes_on_though_its_last_name_was_erased(filled, browser):
    headers = build_headers(filled, "ada")
    names = [user["name"] for user in browser.get("/v1/users", headers=headers).json()["items"]]
    place = names.index("rosalind") + 1
    first_page = browser.get(f"/v1/users?limit={place}", headers=headers).json()
    browser.post("/v1/users/rosalind/erasure", json=REASON, headers=headers)
    page = browser.get(f"/v1/users?after={first_page['next']}", headers=headers).json()
    assert [user["name"] for user in page["items"]] == names[place:]


def test_a_user_exports_their_own_data_and_nobody_elses(filled, browser):
    headers = build_headers(filled, "rosalind")
    answer = browser.get("/v1/users/rosalind/data", headers=headers)
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert {row["table"] for row in rows} == {
        "account_names", "api_keys", "decisions", "exposures", "ledger", "policies",
        "role_assignments", "users",
    }  # fmt: skip
    (first, _) = (row for row in rows if row["table"] == "decisions")
    assert (first["case"], first["answers"], first["note"]) == (
        "c-0", {"parcel": "sound"}, "blurred",
    )  # fmt: skip
    assert "fog came up" in [row.get("text") for row in rows]
    refused = browser.get("/v1/users/bo/data", headers=headers)
    assert refused.json()["code"] == "not-allowed"


def test_a_missing_reason_and_an_unknown_key_are_refused(filled, browser):
    headers = build_headers(filled, "ada")
    for body, code in (
        ({"kind": "case", "key": "c-0", "reason": " "}, "erasure-refused"),
        ({"kind": "case", "key": "osprey", **REASON}, "unknown-subject"),
        ({"kind": "reviewer", "key": "bo", **REASON}, "erasure-refused"),
    ):
        answer = browser.post("/v1/rollouts/ramps/erasures", json=body, headers=headers)
        assert answer.json()["code"] == code


@pytest.mark.parametrize("is_required", [True, False])
def test_removing_an_operator_warns_of_who_lacks_a_required_factor(filled, service, is_required):
    for name in ("cy", "dee", "eve", "fay"):  # of six operators two have no second factor
        roles = [AssignedRole("operator")]
        users.create_account(filled, ADA, name, at=NOON, role_assignments=roles)
    with filled.begin_write() as transaction:
        for name in ("ada", "rosalind", "bo", "cy", "dee"):
            user = Users(transaction).find(name)
            SecondFactors(transaction).add(user, b"secret", at=NOON)
            SecondFactors(transaction).confirm(user, at=NOON, code_hashes=[name.encode()])
    headers = build_headers(filled, "ada")
    with TestClient(create_app(replace(service, requires_second_factor=is_required))) as client:
        answers = [
            client.patch("/v1/users/dee", json={"disabled": True}, headers=headers),
            client.post("/v1/users/rosalind/erasure", json=REASON, headers=headers),
            client.patch("/v1/users/bo", json={"disabled": True}, headers=headers),
        ]
    warnings = [answer.json()["warnings"] for answer in answers]
    assert list(map(len, warnings)) == ([0, 1, 1] if is_required else [0, 0, 0])
    for (warning,) in filter(None, warnings):
        assert warning.startswith("ramps: stops: a stop could not be ended")
