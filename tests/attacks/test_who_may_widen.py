"""Approvals by whom they may not be from, and what was approved that is not what is applied."""

import json

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.users import AccountUpdate
from rollout.features.proposals import proposals
from tests.api.bears import CREEK, LAKE, LOOSER, V1, founded, scope_of, tick, widened
from tests.factories import DAY, NOON, TURNED

OPERATOR, SAFETY = AssignedRole("operator"), AssignedRole("approver", group="safety")


@pytest.fixture(autouse=True)
def _bears(database):
    founded(database, NOON)


def raised(database):
    tick(database, NOON)
    (proposal,) = scope_of(database).proposals.values()
    return proposal


def approve(client, by, proposal, evidence=None):
    body = {"evidence_hash": evidence or proposal.evidence_hash}
    answer = client.by(by).post(f"{V1}/proposals/{proposal.id}/approvals", json=body)
    return answer.status_code, answer.json().get("code", "")


def holder(database):
    return scope_of(database).get_holder(CREEK)


def test_one_person_with_both_groups_fills_one_seat(client, database, door):
    door.let_in("eve", OPERATOR, SAFETY)
    proposal = raised(database)
    assert approve(client, "eve", proposal)[0] in {200, 201}
    assert approve(client, "eve", proposal)[0] in {200, 201}
    tick(database, NOON)
    assert holder(database) is None


def test_two_keys_of_one_person_are_one_person(client, database, door):
    door.let_in("eve", OPERATOR)
    door.callers["second key of eve"] = door.callers["eve"]
    proposal = raised(database)
    approve(client, "eve", proposal)
    approve(client, "second key of eve", proposal)
    tick(database, NOON)
    assert holder(database) is None


def test_a_machine_that_was_given_every_role_approves_nothing(client, database, door):
    door.let_in("robot", OPERATOR, SAFETY, machine=True)
    assert approve(client, "robot", raised(database)) == (403, "service-account-key")


def test_an_operator_of_a_site_approves_no_policy_no_resume_beyond_it_and_no_clock(
    client, database, door
):
    door.let_in("eve", AssignedRole("operator", "bears", "creek"))
    widened(database, NOON, CREEK, LAKE)
    client.by("ana").put(f"{V1}/policy", content=LOOSER, headers={"Content-Type": "text/yaml"})
    client.by("ana").post(f"{V1}/stops", json={"all": True})
    (held,) = scope_of(database).stops
    client.by("ana").post(f"{V1}/stops/{held}/resume")
    kinds = {p.kind for p in scope_of(database).proposals.values()}
    assert {"policy", "resume"} <= kinds
    for proposal in scope_of(database).proposals.values():
        if proposal.kind in {"policy", "resume"}:
            assert approve(client, "eve", proposal) == (403, "not-allowed")


def test_a_closed_proposal_of_another_site_is_refused_like_an_open_one(client, database, door):
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    door.let_in("cleo", AssignedRole("operator", "bears", "creek"))
    proposal = raised(database)
    assert proposal.cell.site == "creek"
    url = f"{V1}/proposals/{proposal.id}/rejection"
    for by, answers in (("eve", 403), ("cleo", 200), ("cleo", 200), ("eve", 403)):
        assert client.by(by).post(url, json={"reason": ""}).status_code == answers
    assert approve(client, "eve", proposal) == (403, "not-allowed")
    assert approve(client, "cleo", proposal) == (409, "proposal-closed")


def test_a_closed_resume_is_refused_beyond_the_sites_of_its_stop(client, database, door):
    door.let_in("eve", AssignedRole("operator", "bears", "lake"))
    door.let_in("cleo", AssignedRole("operator", "bears", "creek"))
    widened(database, NOON, CREEK)
    client.by("ana").post(f"{V1}/stops", json={"sites": ["creek"]})
    (stop,) = scope_of(database).stops
    client.by("ana").post(f"{V1}/stops/{stop}/resume")
    (proposal,) = (p for p in scope_of(database).proposals.values() if p.kind == "resume")
    url = f"{V1}/proposals/{proposal.id}/rejection"
    for by, answers in (("ana", 200), ("cleo", 200), ("eve", 403)):
        assert client.by(by).post(url, json={"reason": ""}).status_code == answers


def test_who_applied_a_policy_does_not_approve_it_and_its_hash_is_not_anothers(client, database):
    widened(database, NOON, CREEK)
    client.by("ana").put(f"{V1}/policy", content=LOOSER, headers={"Content-Type": "text/yaml"})
    (proposal,) = (p for p in scope_of(database).proposals.values() if p.kind == "policy")
    assert approve(client, "ana", proposal) == (403, "own-proposal")
    assert approve(client, "bo", proposal, "0" * 64) == (409, "evidence-changed")


def test_evidence_that_turns_after_the_last_yes_widens_nothing(client, database):
    proposal = raised(database)
    for by in ("ana", "bo"):
        assert approve(client, by, proposal)[0] in {200, 201}
    tick(database, NOON, of=TURNED)
    assert holder(database) is None
    assert not scope_of(database).proposals


def test_a_yes_that_was_given_by_right_counts_when_its_giver_has_left(client, database, service):
    """By the table of transitions: eligible at approval; the row cites the access ledger then."""
    users.create_first_admin(database, "zoe", at=NOON)
    zoe = users.load_local_caller(database, "zoe")
    users.create_account(database, zoe, "pat", at=NOON, role_assignments=(OPERATOR,))
    pat = users.load_local_caller(database, "pat")
    proposal = raised(database)
    said = proposals.approve_proposal(
        database, pat, "bears", proposal.id, proposal.evidence_hash, at=NOON
    )
    users.update_account(database, zoe, "pat", AccountUpdate(is_disabled=True), at=NOON + DAY)
    approve(client, "bo", proposal)
    tick(database, NOON + DAY)
    assert holder(database) == "v1"
    rows = client.by("ana").get(f"{V1}/ledger").text
    approval = next(r for r in map(json.loads, rows.splitlines()) if r["revision"] == said.revision)
    assert approval["access_head"] == pat.access_head > 0
