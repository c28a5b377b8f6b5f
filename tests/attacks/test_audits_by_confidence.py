"""Audits by confidence: every way to ask says the same, and its share is stored with the case."""

import pytest
from sqlalchemy import select

from rollout.core.statistics.sampling import compute_sampling_value
from rollout.store.tables.tables import predictions, reviews
from tests.api.field_box import case, prediction, send, steady
from tests.attacks.test_acts_below_floors import ask, open_box
from tests.factories import NOON
from tests.services import bear_field as field
from tests.store.databases import on_sqlite

__all__ = ["steady"]
POLICY = field.POLICY.replace(
    "evidence:",
    "stages: [{id: supervised, blind: 50%},"
    " {id: autonomous, audit: {least: 10%, below: {90%: 60%}}}]\nevidence:",
)
KEYS = ("c1", "c2", "c5", "c12", "c30", "c31")


@pytest.fixture
def world(database):
    field.set_up_field(database, policy=POLICY)
    field.widen(database, ("creek", "day"))


def draw(key):
    return compute_sampling_value(field.SALT, "stage", key)


def ask_flag(client, flag, key, confidence):
    context = {"targetingKey": key, **field.question(key)}
    if confidence is not None:
        context["confidence"] = confidence
    body = {"context": context}
    path = f"/ofrep/v1/evaluate/flags/gate.bears.{flag}"
    return client.by("ingest").post(path, json=body).json()["value"]


@pytest.mark.slow
@pytest.mark.usefixtures("world")
def test_every_way_to_ask_audits_by_confidence(client):
    box = open_box(client)
    seen = set()
    for confidence, share in ((None, 0.6), (0.89, 0.6), (0.9, 0.1), (1.0, 0.1)):
        for key in KEYS:
            audited = draw(key) < share
            seen.add((share, audited))
            treated = pytest.approx(share if audited else 1 - share)
            answer = ask(client, key, confidence=confidence)
            assert (answer["decider"], answer["audited"], answer["share"]) == (
                "model",
                audited,
                treated,
            )
            local = box.decide("creek", NOON, "v1", key, confidence=confidence)
            assert (local.decider, local.is_audited, local.share) == ("model", audited, treated)
            assert ask_flag(client, "audit", key, confidence) == audited
            assert ask_flag(client, "audit-rate", key, confidence) == share
    assert len(seen) == 4


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_case_is_audited_by_its_prediction_and_its_share_is_stored(client, database):
    asked = {"answers": {"alarm": "bear"}}
    for key in KEYS:
        sure = {"confidence": 0.95} if int(key[1:]) % 2 else {"confidence": 0.3}
        ask(client, key, prediction=asked, **sure)
        send(client, case(key))
    with database.begin_read() as transaction:
        tasks = transaction.execute(select(reviews.c.case_id)).scalars().all()
        stored = transaction.execute(
            select(predictions.c.confidence, predictions.c.share, predictions.c.case_id)
        ).all()
    keys = dict(enumerate(KEYS, start=min(row.case_id for row in stored)))
    for row in stored:
        share = 0.1 if row.confidence == 0.95 else 0.6
        is_audited = draw(keys[row.case_id]) < share
        assert row.share == pytest.approx(share if is_audited else 1 - share)
        assert (row.case_id in tasks) == is_audited
    assert len(stored) == len(KEYS)


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_case_without_a_prediction_is_audited_as_the_least_sure(client, database):
    for key in KEYS:
        send(client, case(key))
        send(client, prediction(key, confidence=0.95))
    with database.begin_read() as transaction:
        tasks = len(transaction.execute(select(reviews.c.case_id)).scalars().all())
    assert tasks == sum(draw(key) < 0.6 for key in KEYS)
