"""No writes, no autonomy: what fails is handed to people, and nothing comes back by itself."""

import json
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from api.app import create_app
from rollout import faults
from rollout.core.calendar.sites import Cell
from rollout.core.scope.commands import Actor, OpenIncident
from rollout.core.scope.incidents import CLOCK_INCIDENT
from rollout.services.engine.autonomy import (
    APPEND_FAILED,
    DAMAGED,
    DEFAULT_RESERVE,
    NO_RESERVE,
    NOT_WRITTEN,
)
from rollout.services.engine.command_handler import execute_command
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.service import build_service
from rollout.services.engine.state_cache import MAX_STALENESS
from rollout.services.engine.stop_latches import NO_FOLDER, LatchFolder
from rollout.services.engine.ticks import TickScheduler
from rollout.services.process.damage_search import (
    NotCleanError,
    clear_checked_damage,
    find_damaged_rollouts,
)
from rollout.services.process.replica_safety import ReplicaSafety
from rollout.services.stops.immediate_stops import (
    ALSO_AFTER_RESTART,
    NARROWING_NOT_STORED,
    NOT_IN_LEDGER,
    UNTIL_RESTART,
)
from rollout.store.database.append_failures import TICK
from rollout.store.database.errors import StoreError
from rollout.store.database.rollouts import Rollouts
from rollout.store.ledger.ledger import Ledger
from rollout.store.ledger.pending_stops import (
    PendingStop,
    load_safety_rows,
    store_pending_stop,
)
from tests.api.conftest import Asking
from tests.factories import NOON
from tests.services import bear_field as field
from tests.services.bear_field import keys, question
from tests.store.databases import on_sqlite

V1 = "/v1/rollouts/bears"
ALONE = keys(0.1, below=False)[0]
CREEK = {"cells": [{"site": "creek", "window": "day"}], "reason": "smoke"}
LEDGER, EVERY_WRITE = "append.locked", "commit.before"


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    """The clock of tests is set; a database's own is not."""
    for module in ("state_cache", "clock_check"):
        monkeypatch.setattr(
            f"rollout.services.engine.{module}.measure_clock_skew", lambda *_: timedelta(0)
        )


class Replica:
    """A replica whose heartbeats a test writes by hand."""

    def __init__(self, database, door, clock, folder=NO_FOLDER):
        self.clock = clock
        self.service = build_service(database, door, clock, entropy=bytes)
        self.service.autonomy.latches.open_folder(folder)
        self.service.autonomy.require_writes(reserve=0)
        self.safety = ReplicaSafety(self.service, "a")
        self.client = Asking(create_app(self.service), raise_server_exceptions=False)

    def beat(self):
        return self.safety.run_pass()

    def pass_time(self, seconds=MAX_STALENESS):
        self.clock.advance(timedelta(seconds=seconds))

    def ask(self, site="creek"):
        body = question(ALONE, site, at=self.clock.at.isoformat())
        answer = self.client.by("ingest").post(f"{V1}/assignments", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def decider(self, site="creek"):
        return self.ask(site)["decider"]

    def reason(self, site="creek"):
        return self.ask(site)["reason"]

    def stop(self, **body):
        return self.client.by("bo").post(f"{V1}/stops", json=body or CREEK)

    def readiness(self):
        return self.client.get("/health/ready")


@pytest.fixture
def bears(database):
    field.autonomous(database)


@pytest.fixture
def replica(database, door, clock, bears):
    return Replica(database, door, clock)


@pytest.fixture
def second(other, door, clock, bears):
    made = Replica(other, door, clock)
    made.safety._owner = "b"
    return made


@contextmanager
def failing(point):
    """Let the database fail at a point, and prove that it did."""
    hits = []

    def fail(name):
        hits.append(name)
        raise StoreError("database or disk is full")

    with faults.install_action(fail, point):
        yield
    assert hits


def stored(database):
    with database.begin_read() as transaction:
        return load_safety_rows(transaction)


def events(database, *kinds):
    with database.begin_read() as transaction:
        return list(Ledger(transaction, Rollouts(transaction).find("bears")).list_rows(kinds=kinds))


def test_a_fresh_process_hands_all_to_people_until_its_first_confirmed_write(replica):
    assert (replica.decider(), replica.reason()) == ("human", NOT_WRITTEN)
    assert "no confirmed write yet" in replica.readiness().json()["detail"]
    scope = replica.client.by("ingest").get(f"{V1}/scope")
    assert (scope.status_code, scope.json()["code"]) == (503, "no-autonomy")
    assert replica.beat() == ()
    assert replica.decider() == "model"
    assert replica.client.by("ingest").get(f"{V1}/scope").status_code == 200
    assert replica.readiness().json() == {"ready": True, "last_write_age": 0.0}


@on_sqlite
def test_a_confirmed_write_counts_for_three_seconds(replica):
    replica.beat()
    replica.pass_time(3.0)
    assert replica.decider() == "model"
    replica.pass_time(0.1)
    assert (replica.decider(), replica.reason()) == ("human", NOT_WRITTEN)
    ready = replica.readiness()
    assert (ready.status_code, "last confirmed write 3.1 s ago" in ready.text) == (503, True)
    with failing(EVERY_WRITE):
        assert replica.beat()
        assert replica.decider() == "human"
    replica.beat()
    assert replica.decider() == "model"


@on_sqlite
def test_readiness_writes_nothing(replica):
    replica.beat()
    hits = []
    with faults.install_action(hits.append, "commit.before"):
        assert replica.readiness().status_code == 200
    assert hits == []


@on_sqlite
def test_the_volume_needs_its_reserve(replica):
    free = [DEFAULT_RESERVE - 1]
    replica.service.autonomy.require_writes()
    replica.service.autonomy.measure_space = lambda _: free[0]
    replica.beat()
    assert (replica.decider(), replica.reason()) == ("human", NO_RESERVE)
    assert NO_RESERVE in replica.readiness().json()["detail"]
    free[0] += 1
    replica.beat()
    assert replica.decider() == "model"
    free[0] -= 1
    with failing(EVERY_WRITE):
        replica.beat()
    assert replica.reason() == NO_RESERVE  # at once, not when the last write is 3 s old


@on_sqlite
def test_a_failed_append_takes_autonomy_and_only_an_append_gives_it_back(replica, database):
    replica.beat()
    assert replica.decider() == "model"
    told = OpenIncident(at=NOON, kind=CLOCK_INCIDENT, reason="late")
    with failing(LEDGER):
        with pytest.raises(StoreError):
            execute_command(database, "bears", lambda _: told)
        assert (replica.decider(), replica.reason()) == ("human", APPEND_FAILED)
        assert replica.service.autonomy.find_doubt("caves") == ""
        replica.pass_time()
        assert len(replica.beat()) == 1  # the heartbeat succeeds, the append does not
        assert replica.service.autonomy.find_write_doubt() == ""
        assert replica.decider() == "human"
        assert replica.readiness().status_code == 503
    assert replica.decider() == "human"
    assert replica.beat() == ()
    assert replica.decider() == "model"
    (opened,) = events(database, "IncidentOpened")
    assert opened.fields["kind"] == "writes"


@on_sqlite
def test_a_failed_tick_counts_until_a_tick_succeeds(replica, database):
    replica.beat()
    ticks = TickScheduler(database, "a")
    with failing("tick.claimed"):
        assert ticks.run_due_ticks(NOON).errors.keys() == {"bears"}
    assert replica.reason() == APPEND_FAILED
    replica.beat()
    assert list(database.append_failures.failures) == [("bears", TICK)]
    assert replica.decider() == "human"
    replica.pass_time(61)
    assert not ticks.run_due_ticks(replica.clock.at).errors
    replica.beat()
    assert replica.decider() == "model"


@on_sqlite
def test_a_slot_that_another_replica_has_done_ends_a_failed_tick(replica, second, database, other):
    ticks = TickScheduler(database, "a")
    with failing("tick.claimed"):
        ticks.run_due_ticks(NOON)
    replica.pass_time(61)
    with database.begin_write() as transaction:
        transaction.execute(text("delete from tick_slots"))
    assert TickScheduler(other, "b").run_due_ticks(replica.clock.at).errors == {}
    assert ticks.run_due_ticks(replica.clock.at).errors == {}
    assert database.append_failures.failures == {}


@on_sqlite
def test_a_stop_that_the_ledger_lacks_holds_on_every_replica(replica, second, database):
    replica.beat()
    second.beat()
    assert (replica.decider(), second.decider()) == ("model", "model")
    with failing(LEDGER):
        answer = replica.stop()
        assert (answer.status_code, answer.json()["code"]) == (503, "stop-not-stored")
        assert answer.json()["detail"] == NOT_IN_LEDGER
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
        patched.setattr("rollout.services.engine.state_cache._load_rollout", fail)
        patched.setattr("rollout.services.engine.command_handler.load_rollout_state", fail)
        assert fresh.stop().json()["detail"] == UNTIL_RESTART
    fresh.pass_time()
    assert (fresh.decider(), fresh.decider("lake")) == ("human", "human")


@on_sqlite
def test_a_stop_left_in_the_table_is_appended_by_another_replica(second, database):
    left = PendingStop("x", "bears", (Cell("creek", "day"),), Actor("bo"), "fog", False, NOON)
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
def test_a_stop_whose_answer_was_lost_is_not_appended_after_its_resume(second, database):
    field.stop(database, ("creek", "day"))
    field.append(database, field_resumed())
    left = PendingStop("x", "bears", (Cell("creek", "day"),), Actor("bo"), "", False, NOON)
    with database.begin_write() as transaction:
        store_pending_stop(transaction, left)
    second.pass_time(3)
    second.beat()
    assert len(events(database, "Stopped")) == 1
    assert second.decider() == "model"


def field_resumed():
    from rollout.core.scope.events import Resumed  # noqa: PLC0415

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


# Damage


def spoil_rows(database):
    """Write what is no JSON over the bodies of the rollout's ledger."""
    with database.begin_write() as transaction:
        for name in ("update", "delete", "insert"):
            transaction.execute(text(f"drop trigger if exists ledger_no_{name}"))
        triggers = transaction.execute(
            text("select name from sqlite_master where type = 'trigger' and tbl_name = 'ledger'")
        ).scalars()
        for trigger in list(triggers):
            transaction.execute(text(f"drop trigger {trigger}"))
        transaction.execute(text("update ledger set body = '{' where rollout = 1"))


def add_second_rollout(database):
    from rollout.services.engine.policy_application import apply_policy  # noqa: PLC0415

    apply_policy(database, field.POLICY.replace("bears", "caves"), Actor("zoe"), NOON)


@on_sqlite
def test_a_rollout_whose_rows_cant_be_read_is_handed_to_people(replica, second, database):
    add_second_rollout(database)
    replica.beat()
    second.beat()
    assert (replica.decider(), second.decider()) == ("model", "model")
    spoil_rows(database)
    assert find_damaged_rollouts(database) == ("bears",)
    assert (replica.decider(), second.decider()) == ("model", "model")  # from memory
    database.damage_signs.text = "malformed"
    assert (replica.decider(), replica.reason()) == ("human", DAMAGED)
    assert replica.service.autonomy.find_doubt("caves") == DAMAGED  # until it is told apart
    replica.beat()
    assert replica.decider() == "human"
    assert replica.service.autonomy.find_doubt("caves") == ""
    assert [damage.rollout for damage in stored(database).damages] == ["bears"]
    replica.pass_time()
    assert second.decider() == "human"


@on_sqlite
def test_damage_that_cant_be_told_apart_is_of_all(replica, database):
    database.damage_signs.text = "malformed"
    replica.beat()
    assert [damage.rollout for damage in stored(database).damages] == [""]
    assert replica.service.autonomy.find_doubt("caves") == DAMAGED


@on_sqlite
def test_a_row_without_a_form_is_damage_as_soon_as_it_is_read(replica, database):
    replica.beat()
    spoil_rows(database)
    assert replica.decider() == "human"
    assert replica.service.autonomy.latches.is_damaged("bears")


@on_sqlite
def test_only_a_clean_check_ends_damage_as_an_event_with_name_and_reason(
    replica, second, database, door, tmp_path
):
    folder = LatchFolder(tmp_path / "stops")
    replica.service.autonomy.latches.folder = folder
    for one in (replica, second):
        one.beat()
    database.damage_signs.text = "malformed"
    replica.beat()
    admin = door.callers["admin"]
    with database.begin_write() as transaction:
        transaction.execute(text("update proposals set kind = 'x'"))
        transaction.execute(text("delete from ledger_heads where rollout = 0"))
    with pytest.raises(NotCleanError):
        clear_checked_damage(database, admin, " ", at=NOON)
    assert stored(database).damages
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            "rollout.services.process.damage_search.run_health_checks", lambda *_, **__: ()
        )
        assert clear_checked_damage(database, admin, "disk replaced", at=NOON) == ("bears",)
    (row,) = events(database, "DamageCleared")
    assert (row.by, row.fields["reason"]) == ("admin", "disk replaced")
    assert stored(database).damages == ()
    assert replica.service.autonomy.find_doubt("bears") == DAMAGED  # until its next pass
    replica.beat()
    replica.pass_time()
    assert (replica.decider(), second.decider()) == ("model", "model")
    assert list(folder.path.iterdir()) == []


@on_sqlite
def test_a_row_of_damage_that_vanishes_clears_nothing(replica, database):
    replica.beat()
    database.damage_signs.text = "malformed"
    replica.beat()
    with database.begin_write() as transaction:
        transaction.execute(text("delete from damages"))
    replica.beat()
    assert replica.reason() == DAMAGED
    assert stored(database).damages


@on_sqlite
def test_a_pending_stop_is_no_part_of_what_is_decided(replica, database):
    with failing(LEDGER):
        replica.stop()
    with database.begin_read() as transaction:
        assert load_rollout_state(transaction, "bears").scope.stops == {}
