"""What fails in one rollout, or for one user, doesn't hold up the stops of others."""

import asyncio
from contextlib import contextmanager
from threading import Event

import httpx2
import pytest
from sqlalchemy import text

from api import auth
from rollout.data.database.append_failures import StoreError
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.incident_kinds import CLOCK_BEHIND
from rollout.live.rollout_state import execute_command
from tests.api.assignments.test_autonomy import CREEK, V1, bears, events, failing, replica
from tests.api.stops.test_stops_in_outages import NARROWING, deaf, outage, town
from tests.api.test_damage import add_second_rollout
from tests.data.databases import on_sqlite
from tests.factories import NOON

__all__ = ["bears", "deaf", "replica", "town"]  # fixtures


@pytest.fixture
def two_rollouts(replica, database):
    """The replica of `bears` and `caves`, with both read."""
    add_second_rollout(database)
    replica.beat()
    replica.decider()
    for rollout in ("caves", "bears"):
        assert replica.client.by("bo").get(f"/v1/rollouts/{rollout}/stops").status_code == 200
    return replica


def spoil_ledger(database, rollout):
    """Make a rollout's ledger unreadable."""
    with database.begin_write() as transaction:
        triggers = "select name from sqlite_master where type = 'trigger' and tbl_name = 'ledger'"
        for trigger in list(transaction.execute(text(triggers)).scalars()):
            transaction.execute(text(f"drop trigger {trigger}"))
        spoil = (
            "update ledger set body = '{'"
            " where rollout in (select id from rollouts where name = :name)"
        )
        transaction.execute(text(spoil), {"name": rollout})


def pass_time(replica, times=3):
    for _ in range(times):
        replica.pass_time(3)
        replica.beat()


@on_sqlite
@pytest.mark.parametrize(
    ("path", "body", "kind"), [("stops", CREEK, "Stopped"), ("narrowings", NARROWING, "Narrowed")]
)
def test_an_unreadable_rollout_holds_up_no_stop_of_another(
    two_rollouts, database, path, body, kind
):
    with outage(database):
        for rollout in ("caves", "bears"):
            url = f"/v1/rollouts/{rollout}/{path}"
            assert two_rollouts.client.by("bo").post(url, json=body).status_code == 503
    spoil_ledger(database, "caves")
    pass_time(two_rollouts)
    assert len(events(database, kind)) == 1  # of bears


@on_sqlite
def test_an_unreadable_rollout_keeps_no_autonomy_of_another(two_rollouts, database):
    incident = OpenIncident(at=NOON, kind=CLOCK_BEHIND.name, reason="late")
    with failing("append.locked"):
        for rollout in ("caves", "bears"):
            with pytest.raises(StoreError):
                execute_command(database, rollout, lambda _: incident)
    spoil_ledger(database, "caves")
    pass_time(two_rollouts)
    assert [name for name, _ in database.append_failures.failures] == ["caves"]


@on_sqlite
def test_a_refused_narrowing_in_an_outage_keeps_no_autonomy(town, database):
    with outage(database):  # cleo is an operator at another site
        assert town.by("cleo").post(f"{V1}/narrowings", json=NARROWING).status_code == 403
    town.recover()
    assert database.append_failures.failures == {}


@on_sqlite
def test_a_narrowing_that_waits_counts_though_another_one_succeeds(town, database):
    with outage(database):
        assert town.narrow().status_code == 503
    dale = {"sites": ["dale"], "to": "shadow"}
    assert town.by("oli").post(f"{V1}/narrowings", json=dale).status_code == 201
    assert town.decider("creek") == "human"


@pytest.mark.slow
@on_sqlite
def test_invented_keys_hold_up_no_stop_while_the_database_hangs(town, database, monkeypatch):
    is_over = Event()

    @contextmanager
    def hang(*_, **__):
        is_over.wait(60)
        raise ConnectionError
        yield

    monkeypatch.setattr(auth, "LOOK_UP_SECONDS", 0.1)
    monkeypatch.setattr(type(database), "begin_read", hang)
    monkeypatch.setattr(type(database), "begin_write", hang)
    transport = httpx2.ASGITransport(app=town.replica.client.app, raise_app_exceptions=False)

    async def stop(client, key):
        headers = {"Authorization": f"Bearer {key}"}
        return await client.post(f"{V1}/stops", json=CREEK, headers=headers)

    async def run():
        url = "http://localhost:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
            requests = [asyncio.create_task(stop(client, f"ro_abc{n}_zzzz")) for n in range(8)]
            await asyncio.sleep(0.5)
            requests.append(asyncio.create_task(stop(client, town.keys["oli"])))
            for _ in range(200):
                if town.latches.stops:
                    break
                await asyncio.sleep(0.1)
            is_latched = bool(town.latches.stops)
            is_over.set()
            await asyncio.gather(*requests)
            return is_latched

    assert asyncio.run(run())
