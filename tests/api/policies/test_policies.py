"""Policies over HTTP: planned, applied or raised; what is wrong has line and field."""

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.kernel.words import LOOSER_RULES
from tests.api.bears import LOOSER, POLICY, STRICTER, V1, founded, tick, widened
from tests.api.test_shell import problem_of
from tests.factories import HOUR, NOON, TICK


@pytest.fixture
def bears(database):
    founded(database, NOON)


def put(client, text, by="ana"):
    return client.by(by).put(f"{V1}/policy", content=text)


def test_the_first_policy_makes_the_rollout(client):
    done = put(client, POLICY)
    assert (done.status_code, done.json()["outcome"]) == (201, "created")
    assert [e["kind"] for e in done.json()["events"]] == ["RolloutCreated", "PolicyApplied"]
    assert client.get(V1).json()["revision"] == done.json()["revision"] == 2
    again = put(client, POLICY)
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")


def test_a_stricter_policy_holds_and_a_looser_one_waits(client, database, bears):
    stricter = put(client, STRICTER)
    assert (stricter.status_code, stricter.json()["policy"]) == (200, 2)
    looser = put(client, LOOSER)
    assert looser.status_code == 202
    assert looser.json()["required_approvals"] == ["operator", "safety"]
    assert client.get(f"{V1}/policy").json()["text"] == STRICTER
    assert put(client, LOOSER).json()["outcome"] == "unchanged"


def test_a_policy_with_faults_is_told_each_with_line_and_field(client):
    wrong = POLICY.replace("95%", "95").replace("timezone: UTC", "timezone: Mars/Base")
    answer = put(client, wrong)
    assert problem_of(answer) == (422, "policy-refused")
    faults = answer.json()["faults"]
    assert [fault["where"].split(",")[0] for fault in faults] == ["line 3", "line 12"]
    assert "timezone" in faults[0]["where"]
    assert all(fault["text"] for fault in faults)
    assert problem_of(client.get(V1)) == (404, "unknown-rollout")


@pytest.mark.parametrize("body", [b"\xff\xfe", b"", b"[]", b"a: b: c", b"x" * 400_001])
def test_what_is_no_policy_is_refused(client, body):
    assert problem_of(put(client, body)) == (422, "policy-refused")
    assert problem_of(client.post("/v1/plan", content=body)) == (422, "policy-refused")


def test_a_policy_goes_to_the_rollout_that_it_names(client, bears):
    other = POLICY.replace("rollout: bears", "rollout: wolves")
    assert problem_of(put(client, other)) == (422, "refused")


def test_json_is_a_policy_too(client):
    body = {
        "rollout": "bears",
        "timezone": "UTC",
        "levers": [{"id": "alarm", "labels": ["bear", "none"]}],
        "sites": ["creek"],
        "evidence": {"unit": "case"},
        "gates": [{"to": "supervised", "require": [{"measure": "agreement", "at_least": "95%"}]}],
    }
    assert client.put(f"{V1}/policy", json=body).status_code == 201


def test_a_plan_says_what_would_change_and_changes_nothing(client, database, bears):
    before = client.get(V1).json()
    new = client.post("/v1/plan", content=POLICY.replace("bears", "wolves")).json()
    assert (new["changes"]["outcome"], new["cells"]) == ("create", 4)
    assert new["text"].startswith("Plan of wolves")
    same = client.post("/v1/plan", content=POLICY).json()
    assert same["changes"]["outcome"] == "unchanged"
    assert client.post("/v1/plan", content=STRICTER).json()["changes"]["outcome"] == ("apply")
    looser = client.post("/v1/plan", content=LOOSER).json()["changes"]
    assert (looser["outcome"], looser["required_approvals"]) == ("propose", ["operator", "safety"])
    assert any("94 %" in sentence for sentence in looser["looser_texts"])
    (audits, *_) = looser["loosens"]
    assert audits["kind"] in LOOSER_RULES
    assert client.get(V1).json() == before


def test_a_plan_names_the_cells_that_lose_what_they_hold(client, database, bears):
    widened(database, NOON)
    changed = STRICTER.replace("labels: [bear, none]", "labels: [none, bear]")
    changed = changed.replace("bear: siren, none: nothing", "none: nothing, bear: noise")
    found = client.post("/v1/plan", content=changed).json()["changes"]
    assert found["outcome"] in {"propose", "apply"}
    without = STRICTER.replace("sites: [creek, {id: lake, lease: 12h}]", "sites: [lake]")
    cleared = client.post("/v1/plan", content=without).json()["changes"]["cleared"]
    assert "creek · day" in cleared


def test_who_may_not_read_a_rollout_learns_nothing_of_it_by_planning(client, door, bears):
    door.let_in("eve", AssignedRole("viewer", "wolves"))
    found = client.by("eve").post("/v1/plan", content=POLICY).json()["changes"]
    assert found["outcome"] == "create"
    assert problem_of(client.by("reviewer").post("/v1/plan", content=POLICY)) == (
        403,
        "not-allowed",
    )


def test_the_policy_of_any_instant_can_be_read(client, database, clock, bears):
    clock.advance(HOUR)
    put(client, STRICTER)
    then = client.get(f"{V1}/policy", params={"at": NOON.isoformat()}).json()
    assert (then["number"], then["text"], then["by"]) == (1, POLICY, "zoe")
    assert client.get(f"{V1}/policy").json()["number"] == 2
    early = client.get(f"{V1}/policy", params={"at": (NOON - HOUR).isoformat()})
    assert problem_of(early) == (422, "refused")
    assert problem_of(client.get(f"{V1}/policy", params={"at": "2027-06-01T12:00"})) == (
        422,
        "malformed",
    )


def test_only_an_admin_edits(client, bears):
    assert problem_of(put(client, STRICTER, by="operator")) == (403, "not-allowed")
    assert put(client, STRICTER, by="admin").status_code == 200


def test_the_author_of_an_edit_may_not_approve_it_and_others_put_it_in_force(
    client, database, door, bears
):
    raised = put(client, LOOSER, by="cy").json()
    path, yes = (
        f"{V1}/proposals/{raised['proposal']}/approvals",
        {"evidence_hash": raised["evidence_hash"]},
    )
    door.let_in("sam", AssignedRole("approver", "bears", "", "safety"))
    assert problem_of(client.by("cy").post(path, json=yes)) == (403, "own-proposal")
    assert client.by("bo").post(path, json=yes).status_code == 200
    assert client.by("sam").post(path, json=yes).json()["approvals_missing"] == 0
    tick(database, NOON + TICK)
    assert client.by("ana").get(f"{V1}/policy").json()["text"] == LOOSER


def test_a_plan_of_very_many_cells_leaves_out_figures_and_says_where_they_are(client):
    many = POLICY.replace("sites: [creek, ", f"sites: [{', '.join(f's{n}' for n in range(300))}, ")
    found = client.post("/v1/plan", content=many).json()
    assert (found["cells"], found["changes"]["outcome"]) == (602, "create")
    assert "`rollout plan FILE` gives them" in found["text"]
