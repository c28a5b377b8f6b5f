"""Programs that send what judges a model see its answers once no blind decision can count."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, select

from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.records.records import RecordStore
from rollout.data.tables.tables import exposures as stored_exposures
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.records.records import Prediction
from rollout.live.evidence.live_evidence import EvidenceCheck
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.api.records.test_records import case, decision, prediction, sent, sent_apart
from tests.api.test_shell import POLICY
from tests.factories import NOON
from tests.live.test_evidence_check import attacking

RAMPS = "/v1/rollouts/ramps"
DAY = timedelta(days=1)
ACTION = {"kind": "action", "key": "c1", "lever": "parcel", "action": "sound", "by": "person"}
JUDGING = ["ingest", "ingest-decisions", "ingest-outcomes"]


@pytest.fixture(autouse=True)
def _ramps(database, door):
    vouched = "sources: {vouched: [{account: box-7, within: 2h}], "
    apply_policy(database, POLICY.replace("sources: {", vouched), Actor("zoe"), NOON - DAY)
    for role in ("ingest-decisions", "ingest-outcomes", "ingest-predictions"):
        door.let_in(role, AssignedRole(role, "ramps", "ramp-a"), machine=True)


def read(client, by, key="c1"):
    answer = client.by(by).get(f"{RAMPS}/cases/{key}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def list_keys(client, by, **wanted):
    answer = client.by(by).get(f"{RAMPS}/cases", params=wanted)
    return [row["key"] for row in answer.json()["items"]]


def list_exposures(client, *reviewers):
    rows = read(client, "operator")["decisions"]
    return {row["reviewer"]: row["exposure"] for row in rows if row["reviewer"] in reviewers}


def store_assisted(database, *predictions):
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "ramps")
        RecordStore(transaction, state.rollout).store(predictions, received_at=NOON)


@pytest.mark.parametrize("by", JUDGING)
def test_what_the_model_says_is_hidden_from_who_judges_it(client, by):
    sent(client, case(), prediction(label="damaged"))
    shown = read(client, by)
    assert (shown["hidden"], shown["case"]["versions"], shown["case"]["differs"]) == (
        *(True, []),
        None,
    )
    assert shown["predictions"] == shown["actions"] == shown["counted_units"] == []
    assert list_keys(client, by) == ["c1"]
    assert list_keys(client, by, version="v1") == []
    assert list_keys(client, by, differs=True) == []


@pytest.mark.parametrize("by", JUDGING)
def test_it_stays_hidden_while_a_decision_can_be_corrected_or_a_second_one_sent(client, clock, by):
    action = ACTION | {"at": "2027-06-01T11:02:00Z"}
    sent_apart(client, case(), prediction(label="damaged"), decision(), action)
    clock.advance(DAY - timedelta(seconds=1))
    shown = read(client, by)
    assert (shown["hidden"], shown["predictions"], shown["actions"]) == (True, [], [])
    clock.advance(timedelta(seconds=1))  # the case was received at noon and closes after a day
    shown = read(client, by)
    assert [row["answers"] for row in shown["predictions"]] == [{"parcel": "damaged"}]
    assert shown["actions"]
    assert not shown["hidden"]
    assert list_keys(client, by, differs=True) == ["c1"]


def test_it_is_shown_to_programs_that_judge_elsewhere_and_to_users(client, door):
    sent(client, case(), prediction())
    door.let_in("lake-box", AssignedRole("ingest-decisions", "ramps", "ramp-b"), machine=True)
    door.let_in(
        "reader",
        AssignedRole("ingest-decisions", "ramps", "ramp-b"),
        AssignedRole("viewer", "ramps", "ramp-a"),
        machine=True,
    )
    assert read(client, "reader")["predictions"]
    assert client.by("lake-box").get(f"{RAMPS}/cases/c1").status_code == 404
    assert read(client, "viewer")["predictions"]


def test_whether_humans_decide_is_still_told_to_who_sends_their_decisions(client):
    sent(client, case(), prediction())
    assert read(client, "ingest-decisions")["asked"] is True


@pytest.mark.parametrize(
    "claimed", [{"exposure": "assisted"}, {"exposure": "assisted", "share": 0}]
)
def test_no_word_of_its_sender_shows_an_answer_to_who_judges_it(client, claimed):
    """A decision on a case whose answer was shown is not blind, so no guard would see it."""
    claim = {"decider": "human", "share": 1.0, "scope_revision": 0} | claimed
    items = [case(), prediction(label="damaged") | claim]
    told = client.by("ingest").post(f"{RAMPS}/records", json=items).json()["items"][1]
    assert (told["status"], "its answer is not stored" in told["reason"]) == ("accepted", True)
    assert read(client, "ingest-decisions")["predictions"] == []
    sent(client, decision(reviewer="ada", exposure="blind"), by="ingest-decisions")
    assert list_exposures(client, "ada") == {"ada": "blind"}


def test_the_answer_that_helps_people_is_given_and_what_they_decide_is_assisted(client, database):
    sent(client, case())
    helping = Prediction(
        key="c1", version="v1", answers={"parcel": "damaged"}, decider="human", exposure="assisted"
    )
    shadow = Prediction(key="c1", version="v2", answers={"parcel": "sound"})
    store_assisted(database, helping, shadow)
    shown = read(client, "ingest-decisions")
    assert [(row["version"], row["answers"]) for row in shown["predictions"]] == [
        ("v1", {"parcel": "damaged"})
    ]
    assert shown["hidden"]
    sent(client, decision(reviewer="ada"), decision(reviewer="bea"), by="ingest-decisions")
    assert list_exposures(client, "ada", "bea") == {"ada": "assisted", "bea": "assisted"}


def test_what_a_user_sends_who_was_shown_the_answer_is_assisted(client, door):
    sent(client, case(), prediction())
    door.let_in("una", AssignedRole("viewer"), AssignedRole("ingest-decisions"))
    assert read(client, "una")["predictions"]
    sent(client, decision(reviewer="ada"), by="una")
    assert list_exposures(client, "ada") == {"ada": "assisted"}


def test_an_edit_of_what_a_sender_was_shown_is_found(client, database, door):
    sent(client, case(), prediction())
    door.let_in("una", AssignedRole("viewer"), AssignedRole("ingest-decisions"))
    read(client, "una")
    sent(client, decision(reviewer="ada"), by="una")
    assert not EvidenceCheck(database, "ramps").check_all().fault_count
    with attacking(database, "exposures") as transaction:
        transaction.execute(delete(stored_exposures))
    faults = EvidenceCheck(database, "ramps").check_all().faults
    assert any("rests on the exposure prediction on the page case" in fault for fault in faults)


def test_who_did_not_read_the_answer_still_decides_blind(client, database):
    sent(client, case(), case("c2"))
    store_assisted(
        database,
        *(
            Prediction(key=key, version="v1", answers={"parcel": "sound"}, exposure="assisted")
            for key in ("c1", "c2")
        ),
    )
    read(client, "ingest-decisions", "c2")
    sent(client, decision(reviewer="ada"), by="ingest-decisions")
    assert list_exposures(client, "ada") == {"ada": "blind"}


def test_reading_the_answer_again_is_not_recorded_again(client, database, clock):
    sent(client, case())
    helping = {"answers": {"parcel": "damaged"}, "decider": "human", "exposure": "assisted"}
    store_assisted(database, Prediction(key="c1", version="v1", **helping))
    for _ in range(2):
        assert read(client, "ingest-decisions")["predictions"]
        clock.advance(timedelta(minutes=1))
    with database.begin_read() as transaction:
        query = select(stored_exposures).where(stored_exposures.c.reviewer == "ingest-decisions")
        (row,) = transaction.execute(query)
    assert (row.content, row.page) == ("prediction", "case")


def test_reading_what_is_hidden_records_nothing(client, database):
    sent(client, case(), prediction())
    read(client, "ingest-decisions")
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "ramps").rollout
        case_ids = ExternalKeys(transaction, rollout).find_ids(["c1"])
        exposures = ExposureStore(transaction, rollout)
        assert not exposures.list_for_reviewer("ingest-decisions", [*case_ids.values()])


def test_who_predicts_and_is_told_that_humans_decide_reads_what_they_decided(client):
    """Its prediction came first; one that comes after a decision is no evidence."""
    sent_apart(client, case(), prediction(label="damaged"), decision())
    shown = read(client, "ingest-predictions")
    assert [row["answers"] for row in shown["decisions"]] == [{"parcel": "sound"}]
    assert shown["predictions"]
    assert not shown["hidden"]


def test_who_is_vouched_for_reads_no_decision_before_the_case_closes(client, door, clock):
    """Its prediction counts though the decision came first."""
    door.let_in("box-7", AssignedRole("ingest-predictions", "ramps", "ramp-a"), machine=True)
    outcome = {"kind": "outcome", "key": "c1", "answers": {"parcel": "sound"}}
    sent_apart(client, case(), decision(), outcome | {"at": "2027-06-01T11:59:00Z"})
    clock.advance(DAY - timedelta(seconds=1))
    shown = read(client, "box-7")
    assert (shown["hidden"], shown["decisions"], shown["outcomes"]) == (True, [], [])
    assert read(client, "ingest-predictions")["decisions"]
    clock.advance(timedelta(seconds=1))
    shown = read(client, "box-7")
    assert [row["answers"] for row in shown["decisions"]] == [{"parcel": "sound"}]
    assert shown["outcomes"]
