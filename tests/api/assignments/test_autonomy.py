"""No writes, no autonomy: what fails is handed to people, and nothing comes back by itself."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from api.app import create_app
from rollout import faults
from rollout.data.database.append_failures import APPEND, TICK, DatabaseUnavailableError, StoreError
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import load_safety_rows
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import CLOCK_BEHIND, WRITES_FAILED
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS
from rollout.engine.events import VersionFirstUsed
from rollout.features.access import users
from rollout.features.process.replica_safety import ReplicaSafety
from rollout.features.reports.archive import ALIVE_FOR
from rollout.live.autonomy import APPEND_FAILED, DEFAULT_RESERVE, NO_RESERVE, NOT_WRITTEN
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.service import build_service
from rollout.live.state_cache import MAX_STALENESS
from rollout.live.stop_latches import NO_FOLDER
from rollout.live.tick_passes import TickScheduler
from tests.api.conftest import Asking
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.bear_field import keys, question

V1 = "/v1/rollouts/bears"
ALONE = keys(0.1, below=False)[0]
CREEK = {"cells": [{"site": "creek", "window": "day"}], "reason": "smoke"}
LEDGER, EVERY_WRITE = "append.locked", "commit.before"


@pytest.fixture(autouse=True)
def _clocks_agree(monkeypatch):
    """The clock of tests is set; a database's own is not."""
    for module in ("state_cache", "autonomy"):
        monkeypatch.setattr(f"rollout.live.{module}.measure_clock_skew", lambda *_: timedelta(0))


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
def failing(point, error_type=StoreError, passes=0):
    """Let the database fail at a point, after some passes of it, and prove that it did."""
    hits = []

    def fail(name):
        hits.append(name)
        if len(hits) > passes:
            raise error_type("database or disk is full")

    with faults.install_action(fail, point):
        yield
    assert len(hits) > passes


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
    ready = {"ready": True, "last_write_age": 0.0, "overdue": []}
    assert replica.readiness().json() == ready


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
def test_a_write_that_took_long_counts_from_when_it_began(replica):
    with faults.install_action(lambda _: replica.pass_time(3.1), EVERY_WRITE):
        replica.service.autonomy.write_heartbeat("a")
    assert (replica.decider(), replica.reason()) == ("human", NOT_WRITTEN)


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
    told = OpenIncident(at=NOON, kind=CLOCK_BEHIND.name, reason="late")
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


@pytest.mark.slow
@on_sqlite
def test_a_failure_beyond_the_open_incidents_is_counted_once(replica, database):
    for n in range(50):
        told = OpenIncident(at=NOON, kind=WRITES_FAILED.name, reason=f"{n}")
        execute_command(database, "bears", lambda _, told=told: told)
    for _ in range(2):
        database.append_failures.record_failure("bears", APPEND, "disk full")
        for _ in range(3):
            replica.pass_time()
            assert replica.beat() == ()
            assert replica.reason() == APPEND_FAILED  # nothing was appended
        database.append_failures.record_success("bears", APPEND)
        replica.beat()
    found = replica.client.by("viewer").get(f"{V1}/incidents").json()["items"]
    assert {incident["unopened"] for incident in found} == {2}


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


def build_cases(prefix, count=12):
    fields = {"kind": "case", "site": "creek", "occurred_at": NOON.isoformat(), "episode": prefix}
    return [{**fields, "key": f"{prefix}-{number}"} for number in range(count)]


def send_unauthorized(replica, prefix="c", count=12):
    """Send actions without a permit; each opens an incident, all in one append."""
    done = {"kind": "action", "lever": "alarm", "action": "siren", "by": "model", "version": "v1"}
    actions = [
        {**done, "key": case["key"], "at": NOON.isoformat()} for case in build_cases(prefix, count)
    ]
    return replica.client.by("ingest").post(f"{V1}/records", json=actions)


def create_report(replica):
    return replica.client.by("ana").post(f"{V1}/reports", json={"name": "week"})


def erase_episode(replica):
    body = {"kind": "episode", "key": "e", "reason": "request 12"}
    return replica.client.by("ana").post(f"{V1}/erasures", json=body)


LARGE_APPENDS = {
    "IncidentOpened": send_unauthorized,
    "ReportSealed": create_report,
    "CasesErased": erase_episode,
}


def list_failures(database):
    return list(database.append_failures.failures)


@pytest.fixture
def recorded(replica):
    """Return a replica that answers, with cases of an episode."""
    for case in (*build_cases("c"), *build_cases("p", 1), *build_cases("e")):
        replica.client.by("ingest").post(f"{V1}/records", json=[case])
    replica.beat()
    assert replica.decider() == "model"
    return replica


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE_APPENDS)
def test_only_its_own_kind_ends_a_failed_append_of_many_rows(recorded, database, kind):
    append = LARGE_APPENDS[kind]
    writes_before = int(kind == "ReportSealed")  # the account's request for a report
    # a full disk shows when all rows are written
    with failing(EVERY_WRITE, passes=writes_before):
        assert append(recorded).status_code == 503
    assert (recorded.decider(), recorded.reason()) == ("human", APPEND_FAILED)
    assert list_failures(database) == [("bears", kind)]
    for _ in range(2):
        assert recorded.beat() == ()  # opens an incident once, which ends nothing
        recorded.pass_time(1)
    (opened,) = events(database, "IncidentOpened")
    assert opened.fields["trigger"]["values"]["holds"] == kind
    for other in LARGE_APPENDS.values():
        if other is not append:
            other(recorded).raise_for_status()
    assert recorded.decider() == "human"
    assert f"rows with `{kind}`: when the database has space" in recorded.readiness().text
    if kind == "IncidentOpened":
        send_unauthorized(recorded, "p", 1).raise_for_status()
        assert recorded.decider() == "human"  # the same kind, of fewer rows
    recorded.pass_time(ALIVE_FOR.total_seconds())  # that the report ended was not written either
    append(recorded).raise_for_status()
    recorded.beat()
    assert (recorded.decider(), list_failures(database)) == ("model", [])


def test_a_failed_append_of_few_rows_ends_with_the_incident_about_it(recorded, database):
    with failing(LEDGER):
        assert send_unauthorized(recorded, "p", 1).status_code == 503
    assert (recorded.decider(), list_failures(database)) == ("human", [("bears", APPEND)])
    send_unauthorized(recorded, "p", 0).raise_for_status()  # appends nothing
    assert recorded.decider() == "human"
    assert recorded.beat() == ()
    assert recorded.decider() == "model"
    assert [event.fields["kind"] for event in events(database, "IncidentOpened")] == ["writes"]


def test_a_lost_connection_shows_nothing_about_large_appends(recorded, database):
    with failing(EVERY_WRITE, DatabaseUnavailableError):
        assert send_unauthorized(recorded).status_code == 503
    assert list_failures(database) == [("bears", APPEND)]


@pytest.mark.slow
@on_sqlite
def test_an_incident_that_is_not_opened_gives_nothing_back(recorded, database):
    for number in range(MAX_OPEN_INCIDENTS):
        told = OpenIncident(at=NOON, kind=WRITES_FAILED.name, reason=f"full {number}")
        execute_command(database, "bears", lambda _, told=told: told)
    with failing(LEDGER):
        assert send_unauthorized(recorded, "p", 1).status_code == 503
    assert recorded.beat() == ()
    assert recorded.decider() == "human"
    assert "if 50 are open, acknowledge one" in recorded.readiness().text
    path = f"{V1}/incidents/I-1/acknowledgement"
    recorded.client.by("bo").post(path, json={}).raise_for_status()
    assert recorded.decider() == "model"  # it was an append


def test_without_access_ledger_humans_decide_in_every_rollout(recorded, database):
    with failing(LEDGER), pytest.raises(StoreError):
        users.create_first_admin(database, "ada", at=NOON)
    find_doubt = recorded.service.autonomy.find_doubt
    assert (recorded.reason(), find_doubt("caves")) == (APPEND_FAILED, APPEND_FAILED)
    assert recorded.beat() == ()
    assert (recorded.decider(), find_doubt("caves")) == ("model", "")
    (opened,) = events(database, "IncidentOpened")
    assert opened.fields["trigger"]["values"]["ledger"] == "access"


@pytest.mark.slow
def test_an_append_that_is_undone_gives_nothing_back(recorded, database):
    with failing(LEDGER):
        assert send_unauthorized(recorded, "p", 1).status_code == 503
    seen = VersionFirstUsed(at=NOON, by="policy", version="v2")
    with database.begin_write() as transaction, transaction.rehearse():
        state = load_rollout_state(transaction, "bears")
        Ledger(transaction, state.rollout).append([seen], after=state.scope.revision)
    assert recorded.reason() == APPEND_FAILED
    assert len(events(database, "VersionFirstUsed")) == 1
