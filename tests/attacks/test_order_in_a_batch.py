"""A batch has no order: what stands before what in it brings nobody anything."""

from itertools import permutations

import pytest
from msgspec.structs import replace
from sqlalchemy import select

from rollout.data.tables.tables import decisions, predictions, reviews
from rollout.engine.decide.assignment import AssignmentClaim
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.files.parse import DeclaringPrediction
from rollout.engine.records.records import Case, Decision, Prediction
from rollout.features.records.ingest import ingest_items
from rollout.features.records.planted_cases import PlantingRequest, declare_planted_cases
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.field_box import action, case, prediction, request_permit, send, steady
from tests.api.records.test_acted_before import autonomous, incidents
from tests.data.databases import on_sqlite
from tests.factories import HOUR, MINUTE, NOON
from tests.features import bear_field as field
from tests.features.records.test_assignment_claims import POLICY

__all__ = ["steady"]
BOX = Caller("box", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
MODELS = field.keys(0.5, below=False)[0]
AT, NIGHT = NOON + HOUR, NOON + 12 * HOUR
CREEK = Case(key=MODELS, site="creek", occurred_at=AT, window="day")
DALE = replace(CREEK, site="dale")
ANSWER = Prediction(key=MODELS, version="v1", answers={"alarm": "bear"}, at=AT)
CLAIM = AssignmentClaim("model", "blind", 0.5, 5)
UNSTORABLE = {"weather": "\ud800"}


@pytest.mark.parametrize("order", list(permutations([1, 3])), ids=str)
def test_a_correction_after_an_action_is_seen_whatever_stands_behind_it(client, database, order):
    """A first revision behind it made it look like a prediction that came late."""
    autonomous(database)
    permit = request_permit(client, "c1")
    send(client, case("c1"), prediction("c1", revision=2), action(permit, "c1"))
    assert incidents(database) == []
    answers = {1: "bear", 3: "none"}
    corrections = [
        prediction("c1", answers={"alarm": answers[number]}, revision=number) for number in order
    ]
    assert {receipt["status"] for receipt in send(client, *corrections)} == {"accepted"}
    assert [about for about, _, _ in incidents(database)] == ["c1"]


def send_batch(database, items, *earlier_items):
    """Send to a field where the model decides at the creek alone; return the last receipts."""
    field.set_up_field(database, policy=POLICY)
    field.widen(database, ("creek", "day"))
    service = build_service(database, None, ManualClock(NOON))
    for batch in (*earlier_items, items):
        receipts = ingest_items(service, BOX, "bears", batch, NIGHT)
    return receipts


def list_arms(database):
    with database.begin_read() as transaction:
        return set(transaction.execute(select(predictions.c.decider)).scalars())


def claim(answer=ANSWER):
    return DeclaringPrediction(answer, "", CLAIM)


@on_sqlite
@pytest.mark.parametrize(
    ("cases", "arms"),
    [
        ([DALE, CREEK], {None}),  # the second is a conflict: the case is at the dale
        ([CREEK, DALE], {"model"}),
        ([replace(DALE, revision=2), CREEK], {None}),
        ([CREEK, replace(DALE, revision=2)], {None}),
        ([replace(CREEK, revision=2), DALE], {"model"}),
        ([DALE, replace(CREEK, revision=2, attributes=UNSTORABLE)], {None}),
        ([replace(CREEK, attributes=UNSTORABLE)], {None}),
    ],
)
def test_a_claim_is_judged_by_the_case_that_stays(database, cases, arms):
    send_batch(database, [claim(), *cases])
    assert list_arms(database) == arms


@on_sqlite
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_claim_is_judged_alike_wherever_its_case_stands(database, order):
    items = [DALE, claim(), replace(CREEK, revision=2)]
    send_batch(database, [items[number] for number in order])
    assert list_arms(database) == {"model"}


@on_sqlite
def test_a_claim_is_judged_by_the_correction_of_a_stored_case_beside_it(database):
    (_, receipt) = send_batch(database, [replace(DALE, revision=2), claim()], [CREEK])
    assert "its answer is not stored: " in receipt.reason
    assert list_arms(database) == {None}


@on_sqlite
@pytest.mark.parametrize("order", list(permutations(range(3))), ids=str)
def test_a_prediction_gets_no_arm_by_a_correction_of_its_batch(database, order):
    """Whether both come at once or apart: an arm is never added."""
    items = [CREEK, ANSWER, claim(replace(ANSWER, revision=2, answers={"alarm": "none"}))]
    receipts = send_batch(database, [items[number] for number in order])
    assert "an arm is never added" in receipts[order.index(2)].reason
    assert list_arms(database) == {None}


@pytest.mark.parametrize("is_apart", [False, True])
@pytest.mark.parametrize("order", list(permutations([1, 2])), ids=str)
def test_a_review_is_asked_of_the_site_of_the_newest_revision(database, order, is_apart):
    revisions = {1: CREEK, 2: replace(DALE, revision=2)}
    first, second = (revisions[number] for number in order)
    if is_apart:
        send_batch(database, [second], [first])
    else:
        send_batch(database, [first, second])
    with database.begin_read() as transaction:
        sites = set(transaction.execute(select(reviews.c.site)).scalars())
    assert sites == {"dale"}


@pytest.mark.parametrize("is_apart", [False, True])
def test_who_declared_a_planted_case_knows_it_in_its_first_batch_too(database, is_apart):
    field.set_up_field(database)
    eve = Caller("eve", role_assignments=(AssignedRole("admin"),))
    request = PlantingRequest(frozenset({"p1"}), "a wooden bear")
    declare_planted_cases(database, eve, "bears", request, NOON - MINUTE)
    service = build_service(database, None, ManualClock(NOON))
    items = [
        Case(key="p1", site="creek", window="day", occurred_at=NOON),
        Prediction(key="p1", version="v1", answers={"alarm": "bear"}, at=NOON),
        *(
            Decision(
                key="p1", reviewer=name, answers={"alarm": "bear"}, exposure="blind", claims="blind"
            )
            for name in ("eve", "ana")
        ),
    ]
    for batch in [items[:2], items[2:]] if is_apart else [items]:
        ingest_items(service, BOX, "bears", batch, NOON)
    with database.begin_read() as transaction:
        rows = transaction.execute(select(decisions.c.reviewer, decisions.c.exposure)).all()
    assert dict(map(tuple, rows)) == {"eve": "revealed", "ana": "blind"}
