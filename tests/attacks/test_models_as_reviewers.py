"""A model is no human: its name or account decides nothing, and no reviewer is a version."""

import pytest

from rollout.data.access.users import Users
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.records.record_import import import_records
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.versions import ReviewerNameError
from tests.attacks.test_invented_decisions import _two_accounts, begin, send
from tests.data.databases import on_sqlite
from tests.engine.evidence.histories import START, cases, decisions, hour, predictions, records
from tests.factories import MINUTE, NOON
from tests.features.records.test_import_contents import POLICY as STORY

__all__ = ["_two_accounts"]
CASE = {"kind": "case", "key": "c1", "site": "ramp-a", "occurred_at": (NOON - MINUTE).isoformat()}
PREDICTION = {"kind": "prediction", "key": "c1", "version": "v1", "answers": {"parcel": "sound"}}


def decide(reviewer, key="c1"):
    answers = {"parcel": "sound"}
    return {"kind": "decision", "key": key, "reviewer": reviewer, "answers": answers}


@pytest.mark.parametrize(
    ("reviewer", "reason"),
    [
        ("v1", "is the name of a version"),
        (" V1", "is the name of a version"),
        ("camera", "is an account that sends predictions"),
        ("Camera ", "is an account that sends predictions"),
        ("robot", "is an account that sends predictions"),
    ],
)
def test_decision_in_the_name_of_a_model_is_rejected(client, database, reviewer, reason):
    begin(database)
    with database.begin_write() as transaction:
        users = Users(transaction)
        robot = users.add("robot", at=NOON, is_service_account=True)
        users.grant_role(robot, AssignedRole("ingest-predictions"))
    *_, refused = send(client, "camera", CASE, PREDICTION, decide(reviewer))
    assert (refused["status"], reason in refused["reason"]) == ("rejected", True)
    (passed_on,) = send(client, "camera", decide("rita"))
    assert passed_on["status"] == "accepted"


def test_version_that_another_process_just_stored_reviews_nothing(client, database):
    begin(database)
    (case,) = send(client, "people", CASE)  # from here on this process has the rollout's state
    with database.begin_write() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        VersionStore(transaction, rollout).record_info(VersionInfo("v7", "records"), at=NOON)
    (refused,) = send(client, "people", decide("v7"))
    assert (case["status"], refused["status"]) == ("accepted", "rejected")
    assert "is the name of a version" in refused["reason"]


@on_sqlite
def test_reviewer_name_is_no_version(client, database):
    begin(database)
    send(client, "people", CASE, decide("rita"))
    (refused,) = send(client, "camera", {**PREDICTION, "version": "rita"})
    assert refused["status"] == "rejected"
    assert "rita is the name of a reviewer" in refused["reason"]
    (stored,) = send(client, "camera", PREDICTION)
    assert stored["status"] == "accepted"
    question = {"site": "ramp-a", "at": NOON.isoformat(), "key": "c2", "version": "rita"}
    client.by("camera").post("/v1/rollouts/ramps/assignments", json=question)
    with database.begin_read() as transaction:
        assert load_rollout_state(transaction, "ramps").versions.keys() == {"v1"}


@pytest.mark.parametrize("version", ["RITA", " rita ", "Zoe"])
def test_version_in_other_letters_silences_no_reviewer(client, database, version):
    begin(database)
    with database.begin_write() as transaction:
        Users(transaction).add("zoe", at=NOON)
    send(client, "people", CASE, decide("rita"))
    (refused,) = send(client, "camera", {**PREDICTION, "version": version})
    assert refused["status"] == "rejected"
    assert f"{version} is the name of a reviewer" in refused["reason"]
    for reviewer in ("rita", "zoe"):
        (later,) = send(client, "people", {**decide(reviewer), "revision": 2})
        assert later["status"] == "accepted"


@on_sqlite
def test_import_rejects_a_version_as_reviewer_and_a_reviewer_as_version(database):
    apply_policy(database, STORY, Actor("zoe"), START, salt=bytes(32), service_salt=bytes(32))
    answers = predictions(("a", "bear"))
    decided = decisions(("a", "bear", {"reviewer": "v1"}), ("a", "bear", {"reviewer": "rita"}))
    counts = import_records(database, "story", records(cases(("a", 1)), answers, decided), hour(1))
    assert counts["decision"] == {"rejected": 1, "accepted": 1}
    renamed = predictions(("b", "bear", {"version": "rita"}))
    frames = records(cases(("b", 1)), renamed, decisions(("b", "bear")))
    with pytest.raises(ReviewerNameError, match="rita is the name of a reviewer"):
        import_records(database, "story", frames, hour(1))
