"""A version's name stands for one content: predictions that declare another are rejected."""

from datetime import timedelta

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.records import RejectedRecords
from rollout.engine.decide.commands import Actor
from rollout.engine.events import VersionFirstUsed
from rollout.live.policy_application import apply_policy
from rollout.live.tick_passes import Ticker
from tests.api.records.test_records import case, prediction, sent
from tests.api.test_shell import POLICY
from tests.factories import NOON

FIRST, OTHER = "ab" * 32, "cd" * 32
ACCEPTED = ("accepted", "")


DECLARED = f"{POLICY}\nversions: [{{id: v1, content: {FIRST}}}]\n"


@pytest.fixture
def policy_text():
    return POLICY


@pytest.fixture(autouse=True)
def _ramps(database, policy_text):
    apply_policy(database, policy_text, Actor("zoe"), NOON - timedelta(days=1))


def predict(client, key, version="v1", **more):
    (_, result) = sent(client, case(key), prediction(key, version, **more))
    return result


def load_contents(client):
    answer = client.by("ana").get("/v1/rollouts/ramps/versions")
    return {row["version"]: row["content"] for row in answer.json()["items"]}


def test_the_first_prediction_sets_the_content_and_another_one_is_rejected(client, database):
    assert predict(client, "c1", content=FIRST) == ACCEPTED
    fault = "v1 has the content abababababab…, not cdcdcdcdcdcd…"
    assert predict(client, "c2", content=OTHER) == (
        "rejected",
        f"{fault}; give other weights another version name",
    )
    assert predict(client, "c3") == ACCEPTED
    assert predict(client, "c4", content=FIRST) == ACCEPTED
    with database.begin_read() as transaction:
        rejected = RejectedRecords(transaction, Rollouts(transaction).find("ramps"))
        (row,) = rejected.list_after()
    assert (row.item.key, row.item.reason[: len(fault)]) == ("c2", fault)


def test_two_contents_in_one_batch_are_one_content(client):
    items = [case("c1"), prediction("c1", content=FIRST), prediction("c1", "v2", content=OTHER)]
    items += [case("c2"), prediction("c2", content=OTHER), prediction("c2", "v2", content=OTHER)]
    statuses = [status for status, _ in sent(client, *items)]
    assert statuses == ["accepted"] * 4 + ["rejected", "accepted"]


def test_a_version_that_was_used_without_content_gets_none_later(client):
    predict(client, "c1")
    status, reason = predict(client, "c2", content=FIRST)
    assert (status, reason[:42]) == ("rejected", "v1 was used before without `content`; decl")


@pytest.mark.parametrize("content", ["AB" * 32, "ab" * 31, "", "not a hash"])
def test_a_hash_in_another_form_is_an_error_that_says_what_is_expected(client, content):
    status, reason = predict(client, "c1", content=content)
    assert status == "rejected"
    assert "is no SHA-256: write its 64 hexadecimal digits in lower case" in reason


@pytest.mark.parametrize("policy_text", [DECLARED])
def test_the_policy_sets_a_content_that_a_prediction_can_leave_out(client):
    assert predict(client, "c1") == ACCEPTED
    assert predict(client, "c2", content=OTHER)[0] == "rejected"
    assert predict(client, "c3", content=FIRST) == ACCEPTED


def test_to_declare_a_content_in_the_policy_needs_approvals(client, database):
    applied = apply_policy(database, DECLARED, Actor("zoe"), NOON - timedelta(hours=1))
    assert "v1 is declared to have the content abababababab…" in applied.text


def test_the_ledger_names_the_content(client, database):
    predict(client, "c1", content=FIRST, at="2027-06-01T11:00:00Z")
    Ticker(database, "ramps", "one").tick(NOON + timedelta(hours=1))
    with database.begin_read() as transaction:
        ledger = Ledger(transaction, Rollouts(transaction).find("ramps"))
        (used,) = (e for e in ledger.list_events() if isinstance(e, VersionFirstUsed))
    assert (used.version, used.content) == ("v1", FIRST)
    assert load_contents(client) == {"v1": FIRST}


def test_setting_the_end_of_training_keeps_the_content(client):
    predict(client, "c1", content=FIRST)
    body = {"trained_until": "2027-03-01T00:00:00Z"}
    assert client.by("ingest").put("/v1/rollouts/ramps/versions/v1", json=body).status_code == 200
    assert predict(client, "c2", content=OTHER)[0] == "rejected"


def test_a_version_that_was_only_asked_for_gets_its_content_with_its_first_prediction(client):
    body = {"trained_until": "2027-03-01T00:00:00Z"}
    assert client.by("ingest").put("/v1/rollouts/ramps/versions/v1", json=body).status_code == 200
    assert predict(client, "c1", content=FIRST) == ACCEPTED
    assert predict(client, "c2", content=OTHER)[0] == "rejected"


# Questions


def ask(client, key="c1", version="v1", **more):
    body = {"site": "ramp-a", "at": NOON.isoformat(), "key": key, "version": version, **more}
    answer = client.by("ingest").post("/v1/rollouts/ramps/assignments", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_first_question_sets_the_content(client):
    assert "content" not in ask(client, content=FIRST)["reason"]
    assert predict(client, "c1", content=OTHER)[0] == "rejected"
    assert predict(client, "c2", content=FIRST) == ACCEPTED


@pytest.mark.parametrize("prediction_of_case", [None, {"answers": {"parcel": "sound"}}])
def test_a_question_of_another_content_gets_a_human_and_stores_nothing(client, prediction_of_case):
    predict(client, "c1", content=FIRST)
    answer = ask(client, "c2", content=OTHER, prediction=prediction_of_case)
    fault = "v1 has the content abababababab…, not cdcdcdcdcdcd…"
    assert (answer["decider"], answer["reason"][: len(fault)]) == ("human", fault)
    assert answer["lease"] == 0
    if prediction_of_case:
        assert answer["recorded"]["status"] == "rejected"
        assert client.by("ana").get("/v1/rollouts/ramps/cases/c2").status_code == 404


def test_a_question_of_the_known_content_is_answered_as_one_without(client):
    predict(client, "c1", content=FIRST)
    plain, with_content = (ask(client, "c2", **more)["reason"] for more in ({}, {"content": FIRST}))
    assert with_content == plain  # which is about the test's clock where the database has its own
    assert "is no SHA-256" in ask(client, "c2", content="AB")["reason"]


def test_a_question_can_not_declare_a_content_later(client):
    predict(client, "c1")
    assert ask(client, "c2", content=FIRST)["reason"].startswith("v1 was used before without")
