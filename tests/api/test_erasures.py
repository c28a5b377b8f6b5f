"""Erasing and exporting over HTTP, with real accounts."""

import json

import pytest

from rollout.services.access import keys
from tests.api.test_people_routes import as_ada, as_bo, browser, house, service
from tests.factories import NOON
from tests.services.erasure.test_name_erasure import fill
from tests.services.erasure.traces import find_traces
from tests.services.houses import ADA, chance

__all__ = ["as_ada", "as_bo", "browser", "house", "service"]
REASON = {"reason": "request 12"}


@pytest.fixture
def filled(database):
    fill(database)
    return database


def build_headers(database, name):
    made = keys.create_key(database, ADA, name, random_bytes=chance(), at=NOON)
    return {"Authorization": f"Bearer {made.text}"}


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


def test_a_user_exports_their_own_data_and_nobody_elses(filled, browser):
    headers = build_headers(filled, "rosalind")
    answer = browser.get("/v1/users/rosalind/data", headers=headers)
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert {row["table"] for row in rows} == {
        "api_keys", "decisions", "exposures", "ledger", "policies", "role_assignments", "users",
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
