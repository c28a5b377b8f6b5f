"""A stop holds before it is written, is repeated until the ledger has it, outlives a restart."""

import json
import time
from datetime import timedelta

import pytest
from sqlalchemy import text

from rollout import faults
from rollout.data.database.append_failures import StoreError
from rollout.data.ledger.scopes import PendingStop, store_pending_stop
from rollout.engine.decide.commands import Actor
from rollout.features.stops.stops import (
    ALSO_AFTER_RESTART,
    NARROWING_NOT_STORED,
    NOT_IN_LEDGER,
    UNTIL_RESTART,
)
from rollout.kernel.calendar.instants import Cell
from rollout.live.rollout_state import load_rollout_state
from rollout.live.state_cache import MAX_STALENESS
from rollout.live.stop_latches import LatchFolder
from tests.api.assignments.test_autonomy import (
    CREEK,
    EVERY_WRITE,
    LEDGER,
    V1,
    Replica,
    _clocks_agree,
    bears,
    events,
    failing,
    replica,
    second,
    stored,
)
from tests.data.databases import on_postgresql, on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field

pytestmark = pytest.mark.slow

__all__ = ["_clocks_agree", "bears", "replica", "second"]


@on_sqlite
def test_a_stop_that_the_ledger_lacks_holds_on_every_replica(replica, second, database):
    replica.beat()
    second.beat()
    assert (replica.decider(), second.decider()) == ("model", "model")
    with failing(LEDGER):
        answer = replica.stop()
        assert (answer.status_code, answer.json()["code"]) == (503, "stop-not-stored")
        assert (answer.json()["detail"], answer.json()["stored"]) == (NOT_IN_LEDGER, True)
        assert answer.headers["Retry-After"]
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
        replica.pass_time()
        assert (second.decider(), second.decider("lake")) == ("human", "model")
        replica.beat()
        assert replica.decider("lake") == "human"
    assert events(database, "Stopped") == []
    assert replica.beat() == ()
    (row,) = events(database, "Stopped")
    assert (row.by, row.fields["reason"]) == ("bo", "smoke")
    assert stored(database).stops == ()
    replica.pass_time()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")
    assert (second.decider(), second.decider("lake")) == ("human", "model")


@on_sqlite
def test_a_stop_is_latched_before_anything_is_written(replica, database):
    replica.beat()
    assert replica.decider() == "model"
    answers = []

    def ask_meanwhile(_):
        answers.append(replica.service.autonomy.latches.stops)
        cached = replica.service.state_cache.find_cached("bears")
        answers.append(cached)

    with faults.install_action(ask_meanwhile, "commit.before"):
        assert replica.stop().status_code == 201
    assert len(answers[0]) == 1
    assert answers[1] is None  # no state without the stop is used any longer
    assert replica.service.autonomy.latches.stops == ()
    assert stored(database).stops == ()


@on_sqlite
def test_a_stop_that_cant_be_written_says_who_knows_of_it(replica, second, database):
    replica.beat()
    second.beat()
    assert second.decider() == "model"
    with failing(EVERY_WRITE):
        answer = replica.stop()
        assert (answer.status_code, answer.json()["detail"]) == (503, UNTIL_RESTART)
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
        replica.pass_time()
        assert second.decider() == "model"  # as the answer says
    assert replica.decider("lake") == "human"
    replica.beat()
    replica.pass_time()
    assert (second.decider(), replica.decider("lake")) == ("human", "model")
    assert len(events(database, "Stopped")) == 1


@pytest.mark.parametrize("way", ["stops", pytest.param("narrowings", marks=pytest.mark.slow)])
def test_a_stop_waits_two_seconds_for_a_lock_that_another_program_holds(
    replica, database, other, way
):
    replica.beat()
    assert replica.decider() == "model"
    body = CREEK if way == "stops" else {**CREEK, "to": "shadow"}
    with other.begin_write() as holder:  # on SQLite it holds the lock by now
        if holder.engine == "postgresql":
            lock = "lock table ledger_heads, ledger, pending_stops in share row exclusive mode"
            holder.execute(text(lock))
        began = time.monotonic()
        answer = replica.client.by("bo").post(f"{V1}/{way}", json=body)
        assert time.monotonic() - began < 3  # it was 10
        assert (answer.status_code, answer.json()["code"]) == (503, "stop-not-stored")
        assert answer.json()["stored"] is False
        assert replica.decider() == "human"
    assert replica.beat() == ()
    kind = "Stopped" if way == "stops" else "Narrowed"
    assert [row.by for row in events(database, kind)] == ["bo"]
    assert replica.service.autonomy.latches.stops == ()
    replica.pass_time()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")


@on_postgresql
def test_a_stop_that_finds_only_the_ledger_locked_is_stored_for_all(replica, other, database):
    replica.beat()
    with other.begin_write() as holder:
        holder.execute(text("lock table ledger_heads, ledger in share row exclusive mode"))
        began = time.monotonic()
        answer = replica.stop()
        assert time.monotonic() - began < 3
        assert (answer.status_code, answer.json()["stored"]) == (503, True)
        assert len(stored(database).stops) == 1
    assert replica.beat() == ()
    assert len(events(database, "Stopped")) == 1


@on_sqlite
def test_a_restart_finds_the_stop_in_its_file(database, other, door, clock, bears, tmp_path):
    folder = LatchFolder(tmp_path / "stops")
    before = Replica(database, door, clock, folder)
    before.beat()
    assert before.decider() == "model"
    with failing(EVERY_WRITE):
        assert before.stop().json()["detail"] == ALSO_AFTER_RESTART
    (file,) = folder.path.iterdir()
    assert json.loads(file.read_text())["rollout"] == "bears"
    after = Replica(other, door, clock, folder)
    assert after.decider() == "human"
    after.service.autonomy.write_heartbeat("a")
    assert (after.decider(), after.decider("lake")) == ("human", "model")
    after.beat()
    assert (after.decider(), list(folder.path.iterdir())) == ("human", [])
    assert len(events(database, "Stopped")) == 1
    again = Replica(other, door, clock, folder)
    again.beat()
    assert again.decider() == "human"


@on_sqlite
def test_a_file_that_cant_be_read_stops_the_start(database, door, clock, tmp_path):
    (tmp_path / "stop-1.json").write_text("{")
    with pytest.raises(ValueError, match="stop what it names by hand"):
        Replica(database, door, clock, LatchFolder(tmp_path))


@on_sqlite
def test_a_failed_stop_of_all_needs_no_policy_from_the_database(replica, database, monkeypatch):
    """Its target is resolved by the policy last loaded, or means every cell."""
    fresh = Replica(database, replica.service.authenticator, replica.clock)
    fresh.service.autonomy.write_heartbeat("c")

    def fail(*_):
        raise StoreError("rows can't be read")

    with monkeypatch.context() as patched:
        patched.setattr("rollout.live.state_cache._load_rollout", fail)
        patched.setattr("rollout.live.rollout_state.load_rollout_state", fail)
        assert fresh.stop().json()["detail"] == UNTIL_RESTART
    fresh.pass_time()
    assert (fresh.decider(), fresh.decider("lake")) == ("human", "human")


@on_sqlite
def test_a_stop_left_in_the_table_is_appended_by_another_replica(second, database):
    left = PendingStop("x", "bears", (Cell("creek", "day"),), Actor("bo"), "fog", NOON, drill=False)
    with database.begin_write() as transaction:
        store_pending_stop(transaction, left)
    second.beat()
    assert second.decider() == "human"
    assert events(database, "Stopped") == []  # the replica that stored it has its turn
    second.pass_time(3)
    second.beat()
    assert len(events(database, "Stopped")) == 1
    assert stored(database).stops == ()


@on_sqlite
@pytest.mark.parametrize(
    ("by", "seconds", "drills", "count"),
    [
        ("bo", 0, (False, False), 1),
        ("cy", 0, (False, False), 2),
        ("bo", 1, (False, False), 2),
        ("bo", 0, (True, False), 2),
        ("bo", 0, (False, True), 1),
        ("bo", 0, (True, True), 1),
    ],
    ids=["the same", "of another user", "given later", "in earnest", "a drill of it", "the drill"],
)
def test_a_stop_whose_answer_was_lost_is_not_appended_after_its_resume(
    second, database, by, seconds, drills, count
):
    was_drill, is_drill = drills
    field.stop(database, ("creek", "day"), drill=was_drill)
    field.append(database, field_resumed())
    at = NOON + timedelta(seconds=seconds)
    left = PendingStop("x", "bears", (Cell("creek", "day"),), Actor(by), "", at, drill=is_drill)
    with database.begin_write() as transaction:
        store_pending_stop(transaction, left)
    second.pass_time(3 + seconds)
    second.beat()
    assert len(events(database, "Stopped")) == count
    second.pass_time(MAX_STALENESS)  # the watch over ticks has read the stop
    assert second.decider() == ("model" if count == 1 else "human")


def field_resumed():
    from rollout.engine.events import Resumed  # noqa: PLC0415

    return Resumed(at=NOON, by="policy", stop="S-1", proposal="P-9")


@on_sqlite
def test_a_failed_narrowing_is_repeated_until_it_stands(replica, database):
    replica.beat()
    body = {"sites": ["creek"], "to": "shadow"}
    with failing(LEDGER):
        answer = replica.client.by("bo").post(f"{V1}/narrowings", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (503, NARROWING_NOT_STORED)
        assert (replica.decider(), replica.decider("lake")) == ("human", "human")
        replica.beat()
        assert replica.decider("lake") == "human"
    replica.beat()
    replica.pass_time()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")
    assert [row.by for row in events(database, "Narrowed")] == ["bo"]


@on_sqlite
def test_a_snapshot_changes_with_a_stop_that_the_ledger_lacks(replica):
    replica.beat()
    before = replica.client.by("ingest").get(f"{V1}/scope")
    with failing(LEDGER):
        replica.stop()
    replica.service.database.append_failures.record_success("bears", "stop")
    after = replica.client.by("ingest").get(
        f"{V1}/scope", headers={"If-None-Match": before.headers["ETag"]}
    )
    assert after.status_code == 200
    assert [stop["cells"] for stop in after.json()["stops"]] == [CREEK["cells"]]


@on_sqlite
def test_a_pending_stop_is_no_part_of_what_is_decided(replica, database):
    with failing(LEDGER):
        replica.stop()
    with database.begin_read() as transaction:
        assert load_rollout_state(transaction, "bears").scope.stops == {}
