"""Why somebody approved, over HTTP: given with the yes, shown with it, asked for by nobody."""

import pytest

from tests.api.bears import CREEK, LAKE, V1, founded, scope_of, tick
from tests.factories import NOON


@pytest.fixture
def raised(database):
    founded(database, NOON)
    tick(database, NOON, cells=(CREEK, LAKE))
    return scope_of(database).proposals


def reasons(client, proposal):
    shown = client.get(f"{V1}/proposals/{proposal}").json()
    return [(yes["by"], yes["reason"]) for yes in shown["approvals"]]


def test_a_yes_keeps_the_reason_that_came_with_it_and_needs_none(client, raised):
    path, evidence = f"{V1}/proposals/P-1/approvals", raised["P-1"].evidence_hash
    said = {"evidence_hash": evidence, "reason": "two cubs"}
    assert client.by("ana").post(path, json=said).status_code == 200
    again = client.by("ana").post(path, json=said | {"reason": "another"})
    assert again.status_code == 200
    assert client.by("bo").post(path, json={"evidence_hash": evidence}).status_code == 200
    assert reasons(client, "P-1") == [("ana", "two cubs"), ("bo", "")]


def test_of_several_yeses_each_has_its_own_reason(client, raised):
    wanted = [
        {"proposal": name, "evidence_hash": raised[name].evidence_hash, "reason": f"{name} seen"}
        for name in ("P-1", "P-2")
    ]
    client.post(f"{V1}/approvals", json={"approvals": wanted})
    assert reasons(client, "P-2") == [("ana", "P-2 seen")]
    assert reasons(client, "P-1") == [("ana", "P-1 seen")]


def test_a_reason_of_a_closed_proposal_is_still_shown(client, database, raised):
    said = {"evidence_hash": raised["P-1"].evidence_hash, "reason": "two cubs"}
    client.by("ana").post(f"{V1}/proposals/P-1/approvals", json=said)
    client.by("bo").post(f"{V1}/proposals/P-1/rejection", json={"reason": "no"})
    assert reasons(client, "P-1") == [("ana", "two cubs")]


def test_a_reason_that_is_too_long_is_refused(client, raised):
    said = {"evidence_hash": raised["P-1"].evidence_hash, "reason": "x" * 2_001}
    assert client.post(f"{V1}/proposals/P-1/approvals", json=said).status_code == 422
    assert reasons(client, "P-1") == []
