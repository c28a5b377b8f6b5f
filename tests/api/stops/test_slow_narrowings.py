"""A narrowing that is committed seconds later accuses nobody who was told otherwise meanwhile."""

from datetime import timedelta

import pytest

from api.app import create_app
from rollout.data.ledger.ledger import CommitTimes
from rollout.engine.decide.assignment import Permit
from rollout.engine.events import Suspended
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.conftest import Asking
from tests.api.field_box import SECOND, action, case, permissions, prediction, send, steady
from tests.data.databases import on_sqlite
from tests.factories import MINUTE, NOON
from tests.features import bear_field as field

__all__ = ["steady"]
CELL = Cell("creek", "day")
SPLIT = timedelta(milliseconds=40)


@pytest.fixture
def elsewhere(other, door, clock):
    """A client of a second replica."""
    with Asking(create_app(build_service(other, door, clock, entropy=bytes))) as asking:
        yield asking


def ask(client, key):
    return client.by("ingest").post("/v1/rollouts/bears/assignments", json=field.question(key))


def narrow_slowly(database, clock, monkeypatch, meanwhile):
    """Tick; the tick takes 5 s between its decision, a narrowing, and its commit."""

    def decide_slowly(*_, **__):
        at = clock.now()
        clock.advance(5 * SECOND)
        meanwhile()
        return (Suspended(at=at, by="policy", cell=CELL, version="v1", guard="g", alarms=()),)

    monkeypatch.setattr(Ticker, "_decide_slot", decide_slowly)
    assert Ticker(database, "bears", "one").tick(clock.now(), get_time=clock.now)


@on_sqlite
def test_action_is_within_its_lease_where_its_answer_precedes_the_commit(
    client, elsewhere, database, clock, monkeypatch
):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"))
    answers = {}

    def act():
        for key, asking in (("c1", client), ("c2", elsewhere)):
            answers[key] = ask(asking, key).json()

    narrow_slowly(database, clock, monkeypatch, act)
    assert {answer["decider"] for answer in answers.values()} == {"model"}
    decided_at = clock.now()
    clock.advance(SECOND)
    assert ask(client, "c3").json()["decider"] == ask(elsewhere, "c3").json()["decider"] == "human"
    for key, asking in (("c1", elsewhere), ("c2", client)):
        done = action(answers[key]["permit"], key, at=decided_at + SPLIT)
        send(asking, case(key), prediction(key), done)
        assert permissions(client, key) == ["authorized_within_lease"]


@on_sqlite
@pytest.mark.parametrize(
    ("issued", "expected"),
    [(29 * SECOND, "authorized_within_lease"), (31 * SECOND, "unauthorized")],
)
def test_first_reader_counts_where_the_committer_wrote_nothing(
    client, service, database, clock, monkeypatch, issued, expected
):
    field.set_up_field(database)
    field.widen(database, ("creek", "day"))
    revision = ask(client, "c1").json()["revision"]
    monkeypatch.setattr(CommitTimes, "store", lambda *_: None)
    field.stop(database, ("creek", "day"))
    monkeypatch.undo()
    clock.advance(MINUTE)
    permit = Permit("model", revision, NOON + issued, MINUTE)
    text = service.permit_signer.sign(permit, "bears", "c1", "v1")
    send(client, case(), prediction(), action(text, at=NOON + issued))
    assert permissions(client) == [expected]
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "bears").rollout
        assert CommitTimes(transaction, rollout).find(revision + 1) == NOON + 30 * SECOND
