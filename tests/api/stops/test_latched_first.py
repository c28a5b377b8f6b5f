"""Stops and narrowings hold before they wait: for the database, for a thread, for the policy."""

import asyncio
import json
from contextlib import contextmanager
from threading import Event

import httpx2
import pytest

from api import auth
from api.web_kit.page_context import TOKEN_FIELD, mask_token
from rollout import faults
from rollout.data.ledger.scopes import NO_SAFETY_ROWS
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.stops import StopTarget
from rollout.features.stops.stop_options import NOT_LATCHED
from rollout.features.stops.stops import latch_stop
from rollout.kernel.calendar.instants import Cell
from rollout.live import stop_latches
from rollout.live.stop_latches import LatchFolder
from tests.api.assignments.test_autonomy import (
    CREEK,
    V1,
    Replica,
    _clocks_agree,
    bears,
    events,
    replica,
)
from tests.api.stops.test_stops_in_outages import NARROWING, outage, town
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features.houses import chance

__all__ = ["_clocks_agree", "bears", "replica", "town"]
NARROWINGS, STOPS = f"{V1}/narrowings", f"{V1}/stops"
CREEK_DAY, LAKE = ("creek", "day"), {"sites": ["lake"]}


def held_cells(latches):
    """Return what humans decide from memory, as (site, window); () for all cells."""
    stops = latches.add_to_rows(NO_SAFETY_ROWS, "bears").stops
    return {(cell.site, cell.window) for stop in stops for cell in stop.cells or [Cell("*", "*")]}


@pytest.fixture
def quiet(database, door, clock, bears, tmp_path):
    """A replica that can write and has never read the rollout."""
    made = Replica(database, door, clock, LatchFolder(tmp_path / "kept"))
    made.service.autonomy.write_heartbeat("a")
    return made


def files(tmp_path):
    return sorted(path.name.partition("-")[0] for path in (tmp_path / "kept").glob("*"))


def named_sites(row):
    """Return the sites of an entry's cells."""
    return {site for site in ("creek", "dale", "lake") if f"'{site}'" in str(row.fields)}


def deciders(replica):
    replica.pass_time()
    replica.service.autonomy.write_heartbeat("a")
    return replica.decider(), replica.decider("lake")


@pytest.mark.parametrize(
    ("path", "body", "kind"), [(STOPS, CREEK, "Stopped"), (NARROWINGS, NARROWING, "Narrowed")]
)
def test_what_an_unread_rollout_could_not_name_is_wide_until_it_is_read(
    quiet, database, tmp_path, path, body, kind
):
    with outage(database):
        assert quiet.client.by("bo").post(path, json=body).status_code == 503
        assert quiet.beat()
        assert held_cells(quiet.service.autonomy.latches) == {("*", "*")}
    assert deciders(quiet) == ("human", "human")
    assert quiet.beat() == ()
    (row,) = events(database, kind)
    assert row.by == "bo"
    assert named_sites(row) == {"creek"}
    assert (deciders(quiet), files(tmp_path)) == (("human", "model"), [])


@on_sqlite
def test_a_restart_repeats_a_wide_stop_as_it_was_asked(quiet, database, door, clock, tmp_path):
    door.let_in("lou", AssignedRole("operator", "bears", "lake"))
    with outage(database):
        assert quiet.client.by("lou").post(STOPS, json={"all": True}).status_code == 503
    after = Replica(database, door, clock, LatchFolder(tmp_path / "kept"))
    assert deciders(after) == ("human", "human")
    assert after.beat() == ()
    (row,) = events(database, "Stopped")
    assert named_sites(row) == {"lake"}  # where lou is an operator
    assert (deciders(after), files(tmp_path)) == (("model", "human"), [])


@on_sqlite
def test_a_wide_file_of_an_earlier_version_becomes_a_stop_of_all(
    quiet, database, door, clock, tmp_path
):
    with outage(database):
        assert quiet.stop().status_code == 503
    (file,) = (tmp_path / "kept").iterdir()
    file.write_text(
        json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "order"})
    )
    after = Replica(database, door, clock, LatchFolder(tmp_path / "kept"))
    after.beat()
    (row,) = events(database, "Stopped")  # an ordinary resume ends it
    assert named_sites(row) == {"creek", "dale", "lake"}
    assert (after.service.autonomy.latches.stops, files(tmp_path)) == ((), [])


@on_sqlite
@pytest.mark.parametrize("path", [STOPS, NARROWINGS])
def test_a_wide_order_that_is_refused_ends(quiet, database, tmp_path, path):
    nowhere = {"sites": ["moon"], **({"to": "shadow"} if path == NARROWINGS else {})}
    with outage(database):
        assert quiet.client.by("bo").post(path, json=nowhere).status_code == 503
    assert deciders(quiet) == ("human", "human")
    quiet.beat()
    assert events(database, "Stopped", "Narrowed") == []
    assert (deciders(quiet), files(tmp_path)) == (("model", "model"), [])


@on_sqlite
@pytest.mark.parametrize("path", [STOPS, NARROWINGS])
def test_a_name_mistyped_holds_nothing_where_the_policy_is_known(replica, path):
    replica.beat()
    assert replica.decider() == "model"
    latches = replica.service.autonomy.latches
    before = latches.version
    nowhere = {"sites": ["moon"], **({"to": "shadow"} if path == NARROWINGS else {})}
    assert replica.client.by("bo").post(path, json=nowhere).json()["code"] == "unknown-cell"
    assert held_cells(latches) == set()
    assert latches.version - before <= 1  # forgotten, never latched


@on_sqlite
def test_a_narrowing_is_latched_before_anything_is_written(replica):
    replica.beat()
    assert replica.decider() == "model"
    latches, seen = replica.service.autonomy.latches, []

    def look(_):
        cached = replica.service.state_cache.find_cached("bears")
        seen.append((held_cells(latches), latches.narrowings, cached))

    with faults.install_action(look, "commit.before"):
        assert replica.client.by("bo").post(NARROWINGS, json=NARROWING).status_code == 201
    assert {site for site, _ in seen[0][0]} == {"creek"}
    assert seen[0][1:] == ((), None)  # the other cells go on; no state without it is used
    assert held_cells(latches) == set()
    replica.pass_time()
    assert (replica.decider(), replica.decider("lake")) == ("human", "model")


@contextmanager
def hanging(database):
    """Let every transaction wait for the event that is given."""
    is_over = Event()

    @contextmanager
    def hang(*_, **__):
        is_over.wait(60)
        raise ConnectionError
        yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth, "LOOK_UP_SECONDS", 0.1)
        patch.setattr(type(database), "begin_read", hang)
        patch.setattr(type(database), "begin_write", hang)
        try:
            yield is_over
        finally:
            is_over.set()


def by_key(town, path, **body):
    headers = {"Authorization": f"Bearer {town.keys['oli']}"}
    return lambda client: client.post(path, json=body, headers=headers)


def by_form(town, page, **fields):
    form = {TOKEN_FIELD: mask_token(town.session.csrf, chance), "target": "site/lake", **fields}
    headers = {"Cookie": f"rollout={town.session.token}", "Sec-Fetch-Site": "same-origin"}
    path = f"/console/rollouts/bears/{page}/confirm"
    return lambda client: client.post(path, data=form, headers=headers)


NINTH = {
    "stop": lambda town: by_key(town, STOPS, **LAKE),
    "narrowing": lambda town: by_key(town, NARROWINGS, to="shadow", **LAKE),
    "stop form": lambda town: by_form(town, "stop"),
    "narrow form": lambda town: by_form(town, "narrow", to="shadow"),
}


@pytest.mark.slow
@on_sqlite
@pytest.mark.parametrize("way", NINTH)
def test_a_ninth_order_is_latched_while_eight_hang(town, database, way):
    transport = httpx2.ASGITransport(app=town.replica.client.app, raise_app_exceptions=False)

    async def run(is_over):
        url = "http://localhost:8000"
        async with httpx2.AsyncClient(transport=transport, base_url=url) as client:
            send_first = by_key(town, STOPS, **CREEK)
            requests = [asyncio.ensure_future(send_first(client)) for _ in range(8)]
            await asyncio.sleep(0.5)
            assert held_cells(town.latches) == {CREEK_DAY}
            requests.append(asyncio.ensure_future(NINTH[way](town)(client)))
            for _ in range(50):
                if len(held_cells(town.latches)) > 1:
                    break
                await asyncio.sleep(0.1)
            latched = held_cells(town.latches)
            is_over.set()
            return latched, {answer.status_code for answer in await asyncio.gather(*requests)}

    with hanging(database) as is_over:
        latched, statuses = asyncio.run(run(is_over))
    assert statuses == {503}
    assert {site for site, _ in latched} == {"creek", "lake"}


@on_sqlite
def test_a_repeated_order_is_latched_once(town, database):
    with outage(database):
        for _ in range(3):
            assert town.stop().status_code == 503
            assert town.narrow().status_code == 503
        assert (len(town.latches.stops), len(town.latches.narrowings)) == (1, 1)
        assert town.stop(body={"sites": ["creek", "lake"]}).status_code == 503
        assert len(town.latches.stops) == 2
        assert town.stop(body={**CREEK, "drill": True}).status_code == 503  # ends nothing else
        assert len(town.latches.stops) == 3
    town.recover()
    assert held_cells(town.latches) == set()


@on_sqlite
def test_orders_that_cant_be_named_are_bounded_for_each_user(quiet, database, monkeypatch):
    monkeypatch.setattr(stop_latches, "MAX_UNRESOLVED", 2)
    with outage(database):
        for site in ("creek", "lake", "creek"):
            assert NOT_LATCHED not in quiet.stop(sites=[site]).text
        assert quiet.stop(sites=["dale"]).json()["detail"] == NOT_LATCHED
        of_ana = quiet.client.by("ana").post(STOPS, json={"sites": ["dale"]})
        assert NOT_LATCHED not in of_ana.text
    assert len(quiet.service.autonomy.latches.stops) == 3


@on_sqlite
def test_a_stop_whose_request_ends_in_the_queue_is_written_by_the_thread_that_retries(
    replica, database, door
):
    replica.beat()
    target = StopTarget(sites=("creek",))
    with (
        pytest.raises(asyncio.CancelledError),
        latch_stop(replica.service, door.callers["bo"], "bears", target, at=NOON),
    ):
        raise asyncio.CancelledError
    assert replica.service.autonomy.latches.changed.is_set()
    replica.beat()
    assert len(events(database, "Stopped")) == 1
    assert held_cells(replica.service.autonomy.latches) == set()
