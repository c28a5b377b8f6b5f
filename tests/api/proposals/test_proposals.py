"""Proposals over HTTP: shown on their evidence, approved by hash, each person once."""

import pytest

from rollout.engine.decide.permissions import AssignedRole
from tests.api.bears import CREEK, LAKE, LOOSER, V1, approved, founded, scope_of, tick, widened
from tests.api.test_shell import problem_of
from tests.factories import BETWEEN, MET, NOON, TICK

OPERATORS = ("ana", "bo")


@pytest.fixture
def bears(database):
    founded(database, NOON)


@pytest.fixture
def raised(database, bears):
    tick(database, NOON, cells=(CREEK, LAKE))
    return scope_of(database).proposals


def approve(client, by, proposal, **changes):
    path, body = (
        f"{V1}/proposals/{proposal.id}/approvals",
        {"evidence_hash": proposal.evidence_hash},
    )
    return client.by(by).post(path, json=body | changes)


def test_a_proposal_says_what_it_allows_on_which_evidence_and_who_may(client, raised):
    found = client.get(f"{V1}/proposals").json()
    assert [one["id"] for one in found["items"]] == ["P-2", "P-1"]
    one = client.get(f"{V1}/proposals/P-1").json()
    assert one["allows"].startswith("v1 is widened to supervised at creek in day until")
    assert "agreement at least 95 %: 2,000 of 2,000" in one["texts"][0]
    assert one["evidence_hash"] == raised["P-1"].evidence_hash
    assert (one["state"], one["approvals_missing"], one["groups_missing"]) == (
        "open",
        2,
        ["operator"],
    )
    assert one["can_approve"]
    assert not client.by("viewer").get(f"{V1}/proposals/P-1").json()["can_approve"]


def test_two_people_approve_and_a_tick_applies_it(client, database, raised):
    one = raised["P-1"]
    first = approve(client, "ana", one).json()
    assert (first["approvals_missing"], first["by"]) == (1, "ana")
    last = approve(client, "bo", one).json()
    assert last["approvals_missing"] == 0
    assert last["text"] == (
        "the last approval: the next tick applies it unless the evidence has turned by then"
    )
    assert last["revision"] == first["revision"] + 1
    shown = client.get(f"{V1}/proposals/P-1").json()
    assert shown["state"] == "approved"
    (wait,) = shown["waits_for"]
    assert (wait["reason"], wait["text"][:9]) == ("tick", "next tick")
    assert wait["until"] == (NOON + TICK).isoformat().replace("+00:00", "Z")
    tick(database, NOON + TICK)
    shown = client.get(f"{V1}/proposals/P-1").json()
    assert (shown["state"], [yes["by"] for yes in shown["approvals"]]) == ("applied", ["ana", "bo"])
    assert client.get(f"{V1}/cells/creek/day").json()["status"]["stage"] == "supervised"
    assert [p["id"] for p in client.get(f"{V1}/proposals").json()["items"]] == ["P-2"]
    closed = client.get(f"{V1}/proposals", params={"state": "applied"}).json()
    assert [p["id"] for p in closed["items"]] == ["P-1"]


def test_the_same_yes_once_more_gets_the_first_answer_also_when_it_is_applied(
    client, database, raised
):
    first = approve(client, "ana", raised["P-1"]).json()
    assert approve(client, "ana", raised["P-1"]).json() == first
    approve(client, "bo", raised["P-1"])
    tick(database, NOON + TICK)
    before = scope_of(database).revision
    again = approve(client, "ana", raised["P-1"])
    assert (again.status_code, again.json()) == (200, first)
    assert scope_of(database).revision == before
    assert problem_of(approve(client, "cy", raised["P-1"])) == (409, "proposal-closed")


def test_a_yes_to_other_evidence_is_refused(client, raised):
    approve(client, "ana", raised["P-1"])
    other = {"evidence_hash": "0" * 64}
    assert problem_of(approve(client, "ana", raised["P-1"], **other)) == (409, "evidence-changed")
    assert problem_of(approve(client, "bo", raised["P-1"], **other)) == (409, "evidence-changed")
    assert len(client.get(f"{V1}/proposals/P-1").json()["approvals"]) == 1


def test_a_proposal_that_never_was_is_not_there(client, raised):
    assert problem_of(client.get(f"{V1}/proposals/P-9")) == (404, "unknown-proposal")
    for name in ("P-9", "P-²", f"P-{'9' * 5000}"):
        gone = client.post(f"{V1}/proposals/{name}/approvals", json={"evidence_hash": ""})
        assert problem_of(gone) == (404, "unknown-proposal")


def test_a_key_of_a_machine_approves_nothing(client, door, raised):
    door.let_in("bot", AssignedRole("operator"), machine=True)
    assert problem_of(approve(client, "bot", raised["P-1"])) == (403, "service-account-key")


def test_an_operator_of_another_site_may_neither_approve_nor_reject(client, door, raised):
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    assert problem_of(approve(client, "eve", raised["P-1"])) == (403, "not-allowed")
    no = client.by("eve").post(f"{V1}/proposals/P-1/rejection", json={})
    assert problem_of(no) == (403, "not-allowed")
    assert approve(client, "eve", raised["P-2"]).json()["groups"] == ["operator"]
    assert [p["id"] for p in client.by("eve").get(f"{V1}/proposals").json()["items"]] == ["P-2"]
    assert problem_of(client.get(f"{V1}/proposals/P-1")) == (403, "not-allowed")


def test_a_group_counts_only_where_it_is_held(client, door, database, raised):
    approved(database, NOON)
    tick(database, NOON + TICK)
    (one,) = (p for p in scope_of(database).proposals.values() if p.cell == CREEK)
    assert one.needs == ("operator", "safety")
    door.let_in("sam", AssignedRole("approver", "bears", "lake", "safety"))
    assert problem_of(approve(client, "sam", one)) == (403, "not-allowed")
    door.let_in("sam", AssignedRole("approver", "bears", "creek", "safety"))
    assert approve(client, "sam", one).json()["groups"] == ["safety"]
    door.let_in("pat", AssignedRole("approver", "bears", "", "finance"))
    assert problem_of(approve(client, "pat", one)) == (403, "not-eligible")


def test_a_no_closes_it_and_once_more_changes_nothing(client, raised):
    body = {"reason": "after the holidays"}
    done = client.post(f"{V1}/proposals/P-1/rejection", json=body).json()
    assert [e["kind"] for e in done["events"]] == ["ProposalRejected"]
    again = client.post(f"{V1}/proposals/P-1/rejection", json=body)
    assert (again.status_code, again.json()["events"]) == (200, [])
    assert again.json()["revision"] == done["revision"]
    shown = client.get(f"{V1}/proposals/P-1").json()
    assert (shown["closed_by"], shown["closed_reason"]) == ("ana", "after the holidays")


def test_of_several_yeses_one_that_is_refused_fails_no_other(client, raised):
    wanted = [
        {"proposal": "P-1", "evidence_hash": raised["P-1"].evidence_hash},
        {"proposal": "P-9", "evidence_hash": ""},
        {"proposal": "P-2", "evidence_hash": "0"},
    ]
    found = client.post(f"{V1}/approvals", json={"approvals": wanted}).json()["items"]
    assert [(one["approved"], one["code"]) for one in found] == [
        (True, ""),
        (False, "unknown-proposal"),
        (False, "evidence-changed"),
    ]
    assert found[0]["approval"]["by"] == "ana"


def test_a_page_goes_on_where_the_one_before_ended(client, raised):
    first = client.get(f"{V1}/proposals", params={"limit": 1}).json()
    second = client.get(f"{V1}/proposals", params={"limit": 1, "after": first["next"]}).json()
    assert [p["id"] for p in (*first["items"], *second["items"])] == ["P-2", "P-1"]
    assert problem_of(client.get(f"{V1}/proposals", params={"after": "xx"})) == (422, "refused")
    assert problem_of(client.get(f"{V1}/proposals", params={"state": "new"})) == (422, "refused")


def test_a_policy_asks_for_rights_at_all_sites_and_not_for_its_authors(client, door, raised):
    done = client.by("ana").put(f"{V1}/policy", content=LOOSER)
    assert done.status_code == 202
    proposal = client.get(f"{V1}/proposals/{done.json()['proposal']}").json()
    assert "another policy takes the place of policy 1" in proposal["allows"]
    path, body = (
        f"{V1}/proposals/{proposal['id']}/approvals",
        {"evidence_hash": proposal["evidence_hash"]},
    )
    assert problem_of(client.by("ana").post(path, json=body)) == (403, "own-proposal")
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    assert problem_of(client.by("eve").post(path, json=body)) == (403, "not-allowed")
    assert client.by("bo").post(path, json=body).status_code == 200


def test_a_takeover_that_the_evidence_does_not_bear_says_what_is_missing(client, database, bears):
    widened(database, NOON)
    body = {"kind": "takeover", "site": "creek", "window": "day", "version": "v2"}
    asked = client.post(f"{V1}/proposals", json=body | {"to": "supervised"})
    assert problem_of(asked) == (404, "unknown-version")
    body |= {"kind": "renewal", "version": "v1", "to": "supervised"}
    early = client.post(f"{V1}/proposals", json=body)
    assert problem_of(early) == (403, "not-eligible")
    assert "last fifth" in early.json()["detail"]
    assert problem_of(client.post(f"{V1}/proposals", json={"kind": "takeover"})) == (
        422,
        "malformed",
    )


def test_a_takeover_on_evidence_that_bears_it_is_raised_once(client, database, monkeypatch):
    founded(database, NOON, "v1", "v2")
    widened(database, NOON)
    tick(database, NOON, version="v2", of=BETWEEN)  # v2's attempt begins, with its number
    monkeypatch.setattr("rollout.live.evidence.evidence_reader.load_cell_evidence", lambda *_: MET)
    body = {"kind": "takeover", "site": "creek", "window": "day", "version": "v2"}
    raised = client.by("cy").post(f"{V1}/proposals", json=body | {"to": "supervised"})
    assert (raised.status_code, raised.json()["required_approvals"]) == (
        201,
        ["operator", "operator"],
    )
    again = client.by("bo").post(f"{V1}/proposals", json=body | {"to": "supervised"})
    assert (again.status_code, again.json()["proposal"]) == (200, raised.json()["proposal"])
    shown = client.get(f"{V1}/proposals/{raised.json()['proposal']}").json()
    assert "v2 replaces the acting version at supervised" in shown["allows"]
    mine = client.by("cy").get(f"{V1}/proposals/{shown['id']}").json()
    assert "ask another user" in mine["cannot_approve_reason"]
    for name in ("ana", "bo"):
        yes = {"evidence_hash": shown["evidence_hash"]}
        client.by(name).post(f"{V1}/proposals/{shown['id']}/approvals", json=yes)
    tick(database, NOON + TICK, cells=())
    assert client.get(f"{V1}/cells/creek/day").json()["status"]["version"] == "v2"


def test_an_operator_proposes_nothing_at_another_site(client, door, database, bears):
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    body = {"kind": "takeover", "site": "creek", "window": "day", "version": "v1"}
    asked = client.by("eve").post(f"{V1}/proposals", json=body | {"to": "supervised"})
    assert problem_of(asked) == (403, "not-allowed")
    body |= {"site": "nowhere", "to": "supervised"}
    asked = client.by("ana").post(f"{V1}/proposals", json=body)
    assert problem_of(asked) == (404, "unknown-cell")
