"""Writes that fail before an append, or without one; large ones that come back in parts."""

from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import event, text

from rollout.data.database.append_failures import APPEND, NARROWING, RECORDS, TICK, StoreError
from rollout.engine.decide.commands import Actor
from rollout.features.access import users
from rollout.features.erasure.erasure import ErasureRequest, erase_name
from rollout.features.records.planted_cases import PlantingRequest, declare_planted_cases
from rollout.live.autonomy import APPEND_FAILED
from rollout.live.policy_application import apply_policy
from rollout.live.retention import purge_old_records
from rollout.live.tick_passes import TickScheduler
from tests.api.assignments.test_autonomy import (
    EVERY_WRITE,
    V1,
    _clocks_agree,
    bears,
    build_cases,
    erase_episode,
    events,
    failing,
    list_failures,
    recorded,
    replica,
)
from tests.api.stops.test_stops_in_outages import outage, town
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features import bear_field as field
from tests.features.houses import ADA

__all__ = ["_clocks_agree", "bears", "recorded", "replica", "town"]  # fixtures
PARTS = 3


def send(replica, cases):
    return replica.client.by("ingest").post(f"{V1}/records", json=cases)


FULL_TRIGGER = """
create function refuse_many() returns trigger language plpgsql as $$
begin
  if (select count(*) from new_rows) > 20 then
    raise exception 'could not extend file' using errcode = 'disk_full';
  end if;
  return null;
end $$;
create trigger refuse_many after insert on cases referencing new table as new_rows
for each statement execute function refuse_many();
"""


@contextmanager
def full(database):
    """Let the database itself refuse large writes, and no small ones."""
    if database.engine.dialect.name == "postgresql":
        with database.begin_write() as transaction:
            transaction.execute(text(FULL_TRIGGER))
        yield
        with database.begin_write() as transaction:
            transaction.execute(text("drop trigger refuse_many on cases"))
        return

    def keep_size(connection):
        pages = connection.exec_driver_sql("pragma page_count").scalar_one()
        connection.exec_driver_sql(f"pragma max_page_count = {pages + 8}")

    event.listen(database.engine, "begin", keep_size)
    try:
        yield
    finally:
        event.remove(database.engine, "begin", keep_size)
        database.engine.dispose()


@pytest.mark.slow
def test_a_database_that_takes_small_writes_only_takes_autonomy(recorded, database):
    cases = build_cases("n", 300)
    with full(database):
        assert send(recorded, cases).status_code == 503
        assert (recorded.decider(), recorded.reason()) == ("human", APPEND_FAILED)
        assert list_failures(database) == [("bears", RECORDS)]
        for _ in range(60):
            recorded.service.autonomy.write_heartbeat("a")
        assert recorded.decider() == "human"
    assert recorded.beat() == ()
    assert recorded.decider() == "human"
    send(recorded, cases).raise_for_status()
    assert (recorded.decider(), list_failures(database)) == ("model", [])


def send_many(replica, _database):
    send(replica, build_cases("n", 60)).raise_for_status()


def erase(replica, _database):
    erase_episode(replica).raise_for_status()


FAILING_EARLY = {
    RECORDS: ("ingest.records", send_many),
    "CasesErased": ("purge.deleted", erase),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAILING_EARLY)
def test_a_transaction_that_fails_before_its_append_counts(recorded, database, kind):
    point, write = FAILING_EARLY[kind]
    with failing(point), pytest.raises(Exception, match="503"):
        write(recorded, database)
    assert (recorded.decider(), list_failures(database)) == ("human", [("bears", kind)])
    assert recorded.beat() == ()
    (opened,) = events(database, "IncidentOpened")
    assert opened.fields["trigger"]["values"]["holds"] == kind
    assert recorded.decider() == "human"
    write(recorded, database)
    assert (recorded.decider(), list_failures(database)) == ("model", [])


@pytest.mark.slow
def test_few_records_that_fail_are_made_up_for_by_the_incident(recorded, database):
    with failing("ingest.records"):
        assert send(recorded, build_cases("n", 1)).status_code == 503
    assert (recorded.reason(), list_failures(database)) == (APPEND_FAILED, [("bears", APPEND)])
    send(recorded, build_cases("m", 1)).raise_for_status()
    assert recorded.decider() == "human"  # it may be rows of another table that fail
    assert recorded.beat() == ()
    assert recorded.decider() == "model"


@pytest.mark.slow
def test_a_large_write_may_come_back_in_parts(recorded, database):
    cases = build_cases("n", 90)
    with failing(EVERY_WRITE):
        assert send(recorded, cases).status_code == 503
    parts = [cases[start::PARTS] for start in range(PARTS)]
    with failing(EVERY_WRITE):
        assert send(recorded, parts[0]).status_code == 503
    for part in parts[:-1]:
        send(recorded, part).raise_for_status()
        assert recorded.decider() == "human"
    (failure,) = database.append_failures.failures.values()
    assert 0 < failure.repeated_rows < failure.rows
    assert f"({failure.repeated_rows} so far)" in recorded.readiness().text
    send(recorded, parts[-1]).raise_for_status()
    assert (recorded.decider(), list_failures(database)) == ("model", [])


@pytest.mark.slow
def test_single_records_end_a_large_failure_once_they_are_as_many(recorded, database):
    cases = build_cases("n", 60)
    with failing(EVERY_WRITE):
        assert send(recorded, cases).status_code == 503
    (failure,) = database.append_failures.failures.values()
    live = iter(build_cases("m", 200))  # the failed ones were sent to another replica
    while list_failures(database):
        assert recorded.decider() == "human"
        send(recorded, [next(live)]).raise_for_status()
    sent = 200 - len([*live])
    assert recorded.decider() == "model"
    assert sent >= failure.rows / 10  # each record's case takes some rows, of several tables


@pytest.mark.slow
def test_a_failed_purge_ends_when_nothing_is_left_to_delete(recorded, database):
    database.append_failures.record_failure("bears", "RecordsPurged", "full", rows=490)
    assert recorded.decider() == "human"
    assert purge_old_records(database, "bears", NOON) == 0
    assert (recorded.decider(), list_failures(database)) == ("model", [])


def test_refused_records_take_no_autonomy(recorded, database):
    (case,) = build_cases("c", 1)
    conflict = {**case, "site": "lake"}
    answer = send(recorded, [conflict, {"kind": "case"}, {**case, "key": "\0"}, case])
    assert {item["status"] for item in answer.json()["items"]} > {"conflict", "rejected"}
    assert (recorded.decider(), list_failures(database)) == ("model", [])


def add_admin(database):
    users.create_first_admin(database, "ada", at=NOON)


def plant(database):
    request = PlantingRequest(keys=("x",), reason="drill")
    declare_planted_cases(database, ADA, "bears", request, NOON)


def forget_reviewer(database):
    erase_name(database, ErasureRequest(ADA, "bears", "request 12", NOON), "rory")


def change_policy(database):
    apply_policy(database, field.POLICY.replace("lease: 1m", "lease: 2m"), Actor("zoe"), NOON)


BEFORE_APPENDS = {
    "OneTimeLinks.end_links": add_admin,
    "PlantedCases.compute_digest": plant,
    "RolloutNames.replace_rest": forget_reviewer,
    "PolicyTexts.store_text": change_policy,
}
MODULES = {
    "OneTimeLinks": "access.tokens",
    "PlantedCases": "records.incoming_cases",
    "RolloutNames": "erasure.contents",
    "PolicyTexts": "database.rollouts",
}


@pytest.mark.slow
@on_sqlite
@pytest.mark.parametrize("method", BEFORE_APPENDS)
def test_each_change_counts_that_fails_before_its_append(recorded, database, monkeypatch, method):
    said = {"kind": "decision", "key": "c-1", "reviewer": "rory", "answers": {"alarm": "bear"}}
    send(recorded, [said]).raise_for_status()

    def fail(*_, **__):
        raise StoreError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(f"rollout.data.{MODULES[method.partition('.')[0]]}.{method}", fail)
        with pytest.raises(StoreError):
            BEFORE_APPENDS[method](database)
    assert recorded.reason() == APPEND_FAILED
    assert recorded.beat() == ()
    assert recorded.decider() == "model"
    BEFORE_APPENDS[method](database)


@on_sqlite
def test_a_failed_narrowing_is_named_until_this_replica_has_repeated_it(town, database):
    with outage(database):
        assert town.narrow().status_code == 503
    answer = town.replica.readiness()
    assert answer.status_code == 503
    assert "a narrowing: this replica repeats it, or send it again" in answer.text
    database.append_failures.record_success("bears", NARROWING)  # of another one
    assert town.replica.readiness().json()["detail"] == answer.json()["detail"]
    town.replica.service.autonomy.write_heartbeat("a")  # its writes are no doubt any more
    assert town.decider("lake") == "human"
    town.recover()
    assert town.decider("lake") == "model"
    assert len(events(database, "Narrowed")) == 1
    assert town.replica.readiness().status_code == 200


def test_a_narrowing_of_a_failed_tick_is_made_up_for_by_the_next(replica, database):
    ticks = TickScheduler(database, "a")
    replica.clock.advance(timedelta(days=91))  # grants last 90 days
    replica.beat()
    with failing("append.inserted"):
        assert ticks.run_due_ticks(replica.clock.at).errors.keys() == {"bears"}
    assert list_failures(database) == [("bears", TICK)]
    assert "a tick: this replica repeats it" in replica.readiness().text
    assert events(database, "GrantExpired") == []
    replica.pass_time(5)
    assert ticks.run_due_ticks(replica.clock.at).errors == {}
    assert events(database, "GrantExpired")
    replica.beat()
    assert replica.readiness().status_code == 200
