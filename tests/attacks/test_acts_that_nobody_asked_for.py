"""A lying client: it asks about one answer and does what another answer would lead to."""

import hmac
from datetime import timedelta
from itertools import permutations

import pytest
from sqlalchemy import select

from rollout.core.calendar.instants import to_micros
from rollout.core.records.policy_actions import NO_PREDICTION, OTHER_ACTION, TOO_UNSURE
from rollout.core.scope.permits import PART_COUNT
from rollout.services.assignments.snapshots import LOCAL
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.records import ingest
from rollout.services.records.unauthorized_actions import (
    PREDICTION_CAME_LATER,
    PREDICTION_CORRECTED_LATER,
)
from rollout.store.tables.tables import actions
from tests.api.field_box import (
    BEARS,
    FLOORED,
    SECOND,
    action,
    case,
    permissions,
    prediction,
    request_permit,
    send,
    steady,
)
from tests.factories import DAY, HOUR, MINUTE, NOON
from tests.services import bear_field as field
from tests.store.databases import on_sqlite

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
    return [(i.about, i.reason.partition(": ")[2]) for i in scope.open_incidents.values()]


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
    assert incidents(database) == [("c2", OTHER_ACTION)]
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
    assert incidents(database) == [("c1", NO_PREDICTION)]
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
    assert incidents(database) == [("c1", NO_PREDICTION), ("c2", OTHER_ACTION)]


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
    reason = f"{PREDICTION_CORRECTED_LATER}{OTHER_ACTION}"
    assert incidents(database) == [("c1", reason)] * found
    assert permissions(client) == ["authorized"]


# Permits of form 1


def sign_form_1(service, *subject, decider="model", revision=3, issued=NOON, lease=MINUTE):
    """Return a permit as programs before form 2 signed it."""
    key = service.permit_signer.load_signing_key()
    micros = lease // timedelta(microseconds=1)
    text = f"{key.number}.{decider}.{revision}.{to_micros(issued)}.{micros}"
    parts = "".join(f"{len(part)}:{part}" for part in (text, "bears", *subject))
    code = hmac.digest(key.secret, b"rollout-permit-1\x1f" + parts.encode(), "sha256").hex()[:32]
    return f"{text}.{code}"


def revision_of(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "bears").scope.revision


@pytest.mark.usefixtures("world")
@pytest.mark.parametrize(
    ("acted", "received", "expected"),
    [
        (NOON, NOON, "authorized"),
        (NOON + MINUTE, NOON + DAY + MINUTE, "authorized"),
        (NOON + MINUTE + SECOND, NOON + DAY, "unauthorized"),
        (NOON + MINUTE, NOON + DAY + MINUTE + SECOND, "unauthorized"),
    ],
    ids=["at once", "to the last", "past its lease", "kept for a rainy day"],
)
@on_sqlite
def test_a_permit_of_before_is_judged_by_the_old_rule_until_its_lease_ends(
    client, database, service, clock, acted, received, expected
):
    permit = sign_form_1(service, "c1", "v1", revision=revision_of(database))
    clock.advance(received - NOON)
    send(client, case(), action(permit, at=acted, action="nothing"))
    assert permissions(client) == [expected]
    assert kinds(database) == ["form_1" if expected == "authorized" else "unbound"]


@on_sqlite
@pytest.mark.usefixtures("world")
def test_so_is_a_snapshot_of_before_and_a_permit_of_form_2_is_none_to_programs_before(
    client, database, service, clock
):
    permit = sign_form_1(
        service, "lake", decider=LOCAL, revision=revision_of(database), lease=12 * HOUR
    )
    clock.advance(HOUR)
    send(client, case(site="lake"), action(permit, at=NOON + HOUR, action="nothing"))
    assert permissions(client) == ["authorized"]
    for more in ({}, {"prediction": BEAR}):
        text = request_permit(client, "c2", at=clock.now().isoformat(), **more)
        assert len(text.split(".")) != PART_COUNT  # they read no other number of parts
        assert not text.split(".")[0].isdigit()


@on_sqlite
@pytest.mark.usefixtures("floored")
@pytest.mark.parametrize(("confidence", "found"), [(0.3, 1), (None, 1), (0.9, 0)])
def test_a_doubt_that_arrives_after_its_action_is_judged_again(
    client, database, service, confidence, found
):
    send(client, case(), action(sign_form_1(service, "c1", "v1", revision=revision_of(database))))
    assert incidents(database) == []
    for _ in range(2):
        send(client, prediction(confidence=confidence))
    assert incidents(database) == [("c1", f"{PREDICTION_CAME_LATER}{TOO_UNSURE}")] * found
    assert permissions(client) == ["authorized"]


@on_sqlite
@pytest.mark.usefixtures("floored")
def test_a_doubt_in_the_prediction_leaves_no_permit_though_the_question_was_sure(client, database):
    permit = request_permit(client, confidence=0.99, prediction=BEAR | {"confidence": 0.3})
    send(client, action(permit))
    assert incidents(database) == [("c1", "no permit of ours names this case and version")]
