"""A lying client: it asks about one answer and does what another answer would lead to."""

from itertools import permutations

import pytest
from sqlalchemy import select

from rollout.data.tables.tables import actions
from rollout.features.records import ingest
from rollout.kernel.facts import (
    CORRECTED_PREDICTION,
    NO_PERMIT,
    NO_PREDICTION,
    OTHER_ACTION,
    Trigger,
)
from rollout.live.rollout_state import load_rollout_state
from tests.api.field_box import (
    BEARS,
    FLOORED,
    action,
    case,
    permissions,
    prediction,
    request_permit,
    send,
    steady,
)
from tests.data.databases import on_sqlite
from tests.features import bear_field as field

__all__ = ["steady"]
BEAR, NONE = {"answers": {"alarm": "bear"}}, {"answers": {"alarm": "none"}}


@pytest.fixture
def world(database):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"), ("lake", "day"))


@pytest.fixture
def floored(database):
    field.set_up_field(database, policy=FLOORED)
    field.widen(database, ("creek", "day"), ("lake", "day"))


def incidents(database):
    with database.begin_read() as transaction:
        scope = load_rollout_state(transaction, "bears").scope
    return [(i.about, i.trigger) for i in scope.open_incidents.values()]


def kinds(database):
    with database.begin_read() as transaction:
        return list(transaction.execute(select(actions.c.permit_kind)).scalars())


def judged(database):
    with database.begin_read() as transaction:
        rows = transaction.execute(select(actions.c.action, actions.c.authorization))
        return {(row.action, row.authorization) for row in rows}


@pytest.mark.usefixtures("world")
def test_who_asks_about_one_answer_and_does_another_is_unauthorized(client, database):
    for key, did in (("c1", "siren"), ("c2", "nothing")):
        permit = request_permit(client, key, prediction=BEAR)
        send(client, action(permit, key, action=did))
    assert permissions(client, "c1") == ["authorized"]
    assert permissions(client, "c2") == ["unauthorized"]
    assert incidents(database) == [("c2", Trigger(OTHER_ACTION, {}))]
    assert kinds(database) == ["bound", "bound"]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_a_correction_before_the_action_changes_no_answer_that_was_asked_about(client, database):
    permit = request_permit(client, prediction=BEAR)
    send(client, prediction(**NONE, revision=2), action(permit, action="nothing"))
    assert permissions(client) == ["unauthorized"]
    send(client, action(permit, revision=2))
    assert permissions(client) == ["authorized"]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_no_lever_and_no_label_but_the_policys_is_authorized(client):
    permit = request_permit(client, prediction={"answers": {"alarm": "wolf", "door": "open"}})
    for lever, did in (("alarm", "siren"), ("alarm", "wolf"), ("door", "open")):
        send(client, action(permit, lever=lever, action=did))
    assert set(permissions(client)) == {"unauthorized"}


@on_sqlite
@pytest.mark.usefixtures("world")
def test_without_a_prediction_nothing_is_authorized_and_none_made_up_later_helps(client, database):
    permit = request_permit(client)
    send(client, case(), action(permit))
    send(client, prediction())
    assert permissions(client) == ["unauthorized"]
    assert incidents(database) == [("c1", Trigger(NO_PREDICTION, {}))]
    assert kinds(database) == ["unbound"]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_nor_is_a_snapshot_worth_anything_without_one(client, database, service):
    body = client.by("ingest").get(f"{BEARS}/scope").json()
    (permit,) = [site["permit"] for site in body["sites"] if site["site"] == "lake"]
    send(client, case(site="lake"), action(permit))
    send(client, case("c2", "lake"), prediction("c2", **NONE), action(permit, "c2"))
    send(client, case("c3", "lake"), prediction("c3"), action(permit, "c3"))
    found = [permissions(client, key) for key in ("c1", "c2", "c3")]
    assert found == [["unauthorized"], ["unauthorized"], ["authorized"]]
    assert incidents(database) == [
        ("c1", Trigger(NO_PREDICTION, {})),
        ("c2", Trigger(OTHER_ACTION, {})),
    ]


@pytest.mark.slow
@on_sqlite
@pytest.mark.usefixtures("world")
def test_the_order_of_a_batch_does_not_matter(client, database):
    for n, order in enumerate(permutations(range(4))):
        key = f"c{n}"
        permit = request_permit(client, key)
        wrong = action(permit, key, action="nothing", revision=2)
        items = [case(key), prediction(key), action(permit, key), wrong]
        send(client, *(items[place] for place in order))
        assert judged(database) == {("siren", "authorized"), ("nothing", "unauthorized")}, order


@on_sqlite
@pytest.mark.usefixtures("world")
def test_nor_does_it_in_a_request_of_several_transactions(client, monkeypatch):
    monkeypatch.setattr(ingest, "ITEMS_PER_TRANSACTION", 2)
    permit = request_permit(client)
    items = [action(permit), case("c8"), case("c9"), case(), prediction()]
    answers = send(client, *items)
    assert [answer["key"] for answer in answers] == ["c1", "c8", "c9", "c1", "c1"]
    assert permissions(client) == ["authorized"]


@on_sqlite
@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(("asked", "found"), [(None, 1), (BEAR, 0)], ids=["unbound", "bound"])
def test_a_prediction_that_is_corrected_later_is_judged_again(client, database, asked, found):
    permit = request_permit(client, prediction=asked)
    send(client, case(), prediction(), action(permit))
    for _ in range(2):
        send(client, prediction(**NONE, revision=2))
    trigger = Trigger(OTHER_ACTION, {"later": CORRECTED_PREDICTION})
    assert incidents(database) == [("c1", trigger)] * found
    assert permissions(client) == ["authorized"]


@on_sqlite
@pytest.mark.usefixtures("floored")
def test_a_doubt_in_the_prediction_leaves_no_permit_though_the_question_was_sure(client, database):
    permit = request_permit(client, confidence=0.99, prediction=BEAR | {"confidence": 0.3})
    send(client, action(permit))
    assert incidents(database) == [("c1", Trigger(NO_PERMIT, {}))]
