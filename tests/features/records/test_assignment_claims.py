"""Assignments of offline clients are stored if the scope and the sampling value give them."""

import json
from dataclasses import asdict, replace

import pytest
from msgspec import structs
from sqlalchemy import select

from rollout.data.tables.tables import predictions, rejected_records
from rollout.engine.decide.assignment import AssignmentClaim
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.files.parse import DeclaringPrediction, ItemReader
from rollout.engine.records.records import Case, Prediction, RejectedItem
from rollout.features.records.action_authorization import STORED_BEFORE, ClaimChecker, StoredCase
from rollout.features.records.ingest import ingest_items
from rollout.live.clock import ManualClock
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.data.conftest import database, url
from tests.data.databases import on_sqlite
from tests.factories import HOUR, MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["database", "url"]
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
POLICY = field.POLICY.replace(
    "sites:",
    "stages: [{id: supervised, blind: 50%}, {id: autonomous, blind: 50%, audit: 10%}]\nsites:",
)
PEOPLES, MODELS = field.keys(0.5)[0], field.keys(0.5, below=False)[0]
AT = NOON + HOUR
MODEL = AssignmentClaim("model", "blind", 0.5, 5)
PEOPLE = AssignmentClaim("human", "blind", 0.5, 5)
STOPPED_AT = NOON + 2 * HOUR


def send(database, key, claim, *, case_at=AT, sent_before=()):
    """Upload a prediction with a claim; return its receipt."""
    field.set_up_field(database, policy=POLICY)
    field.widen(database, ("creek", "day"))
    field.stop(database, ("lake", "day"), at=STOPPED_AT)
    service = build_service(database, None, ManualClock(NOON))
    case = Case(key=key, site="creek", occurred_at=case_at, window="day")
    prediction = Prediction(
        key=key,
        version="v1",
        answers={"alarm": "bear"},
        at=case_at,
        revision=1 + len(sent_before),
    )
    night = NOON + 12 * HOUR
    if sent_before:
        ingest_items(service, BOX, "bears", sent_before, night)
    items = [DeclaringPrediction(prediction, "", claim), *([case] if case_at else [])]
    return ingest_items(service, BOX, "bears", items, night)[0]


def read_stored(database):
    with database.begin_read() as transaction:
        columns = (predictions.c[name] for name in ("decider", "exposure", "share"))
        rows = transaction.execute(select(*columns, predictions.c.scope_revision)).all()
        rejected = transaction.execute(
            select(rejected_records.c.kind, rejected_records.c.reason)
        ).all()
    return [AssignmentClaim(*row) for row in rows], rejected


@pytest.mark.parametrize(
    ("key", "claim", "case_at"),
    [
        (MODELS, MODEL, AT),
        (PEOPLES, PEOPLE, AT),
        (MODELS, MODEL, STOPPED_AT + 3 * HOUR),  # the longest lease is lake's, 12 hours
    ],
)
def test_a_right_assignment_is_stored_with_the_prediction(database, key, claim, case_at):
    receipt = send(database, key, claim, case_at=case_at)
    assert (receipt.status, receipt.reason) == ("accepted", "")
    assert read_stored(database) == ([claim], [])


EARLIER = Prediction(key=MODELS, version="v1", answers={"alarm": "none"}, at=AT)


@on_sqlite
@pytest.mark.parametrize(
    ("key", "claim", "more", "reason"),
    [
        (PEOPLES, MODEL, {}, "the client says model (blind, 50 % of units); revision 5"),
        (PEOPLES, MODEL, {}, "the sampling value give human (blind, 50 % of units)"),
        (MODELS, PEOPLE, {}, "says human (blind, 50 % of units); revision 5"),
        (MODELS, replace(MODEL, share=0.3), {}, "give model (blind, 50 % of units)"),
        (MODELS, replace(MODEL, exposure="assisted"), {}, "give model (blind, 50 % of units)"),
        (MODELS, replace(MODEL, share=1.0), {}, "give model (blind, 50 % of units)"),
        (PEOPLES, replace(PEOPLE, exposure="assisted", share=1.0), {}, "human (blind, 50 % of"),
        (MODELS, replace(MODEL, revision=2), {}, "than any lease of its revision"),
        (MODELS, replace(MODEL, revision=6), {}, "no such revision at the time"),
        (MODELS, replace(MODEL, revision=99), {}, "no such revision"),
        (MODELS, MODEL, {"case_at": None}, "its case is not known"),
        (MODELS, MODEL, {"sent_before": [EARLIER]}, "an arm is never added"),
    ],
)  # fmt: skip
def test_a_wrong_assignment_is_named_and_not_stored(database, key, claim, more, reason):
    receipt = send(database, key, claim, **more)
    stored, rejected = read_stored(database)
    assert receipt.status == "accepted"
    assert "its answer is not stored: " in receipt.reason
    assert reason in receipt.reason
    assert stored[-1].decider is None
    assert [row.kind for row in rejected] == ["assignment"]


@on_sqlite
def test_an_arm_is_not_added_under_another_name_of_the_version(database):
    send(database, MODELS, None)
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
        state = replace(state, first_names={"again": "v1"})
        case = Case(key=MODELS, site="creek", occurred_at=AT, window="day")
        stored = StoredCase(case, {"v1": [EARLIER]})
        renamed = structs.replace(EARLIER, version="again")
        fault = ClaimChecker(transaction, state).find_fault(MODEL, renamed, stored, case)
    assert fault == STORED_BEFORE


@on_sqlite
def test_an_answer_without_sampling_is_stored_as_it_is(database):
    claim = AssignmentClaim("human", "blind", 1.0, 0)  # the lease had ended
    assert send(database, MODELS, claim).reason == ""
    assert read_stored(database) == ([claim], [])


@pytest.mark.parametrize("missing", ["", "decider", "exposure", "share", "scope_revision"])
def test_an_assignment_is_sent_whole_or_not_at_all(missing):
    reader = ItemReader(lambda *_: "day", NOON + MINUTE)
    fields = asdict(MODEL)
    fields["scope_revision"] = fields.pop("revision")
    fields.pop(missing, None)
    item = {"kind": "prediction", "key": "a", "version": "v1", "answers": {}} | fields
    parsed = reader.read_body(json.dumps([item]).encode())
    if missing:
        assert isinstance(parsed[0], RejectedItem)
        assert "send all of them or none" in parsed[0].reason
    else:
        assert parsed == [DeclaringPrediction(parsed[0].prediction, "", MODEL)]
