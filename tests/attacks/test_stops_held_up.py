"""Whatever comes with a stop, before it or beside it: it is made."""

import json
import threading
import time

import pytest

from api.priority_threads import PRIORITY_THREADS
from rollout.data.database.session import WriteLock
from rollout.engine.decide.permissions import AssignedRole
from rollout.kernel.calendar.instants import Cell
from tests.api.bears import CREEK, LAKE, V1, approved, founded, scope_of, tick, widened
from tests.data.databases import on_sqlite
from tests.factories import NOON

pytestmark = on_sqlite  # what is attacked is the edge; promises on both engines stand elsewhere
JSON = {"Content-Type": "application/json"}
KEY = {"Idempotency-Key": "stop-all"}


@pytest.fixture(autouse=True)
def _bears(database):
    founded(database, NOON)
    widened(database, NOON, CREEK, LAKE)


def stop(client, body=None, headers=None):
    body = {"all": True} if body is None else body
    headers = JSON | (headers or {})
    return client.by("bo").post(f"{V1}/stops", content=json.dumps(body), headers=headers)


def stopped(database, cell=CREEK):
    return scope_of(database).is_stopped(cell)


def resume(client, database):
    (held,) = scope_of(database).stops
    assert client.by("bo").post(f"{V1}/stops/{held}/resume").status_code == 201
    approved(database, NOON)
    assert not stopped(database)


def test_a_stop_with_the_key_of_an_earlier_one_is_a_new_one(client, database):
    assert stop(client, headers=KEY).status_code == 201
    resume(client, database)
    assert stop(client, headers=KEY).status_code == 201
    assert stopped(database)


def test_a_stop_with_a_key_that_was_used_otherwise_is_made(client, database):
    client.by("bo").post(f"{V1}/stops/S-9/resume", headers=KEY)
    assert stop(client, headers=KEY).status_code == 201
    assert stopped(database)


@pytest.mark.parametrize("key", ["", "k" * 201, "\u00fc"])
def test_a_stop_with_a_key_that_is_none_is_made(client, database, key):
    assert stop(client, headers={"Idempotency-Key": key.encode()}).status_code == 201
    assert stopped(database)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        ("x" * 2_001, "x" * 2_000),
        (None, ""),
        (7, "7"),
        (["smoke", "fire"], '["smoke", "fire"]'),
        ("a\ud800b", "a?b"),
        ("a\x00b", "a\ufffdb"),
    ],
    ids=["long", "null", "a number", "a list", "half a letter", "nul"],
)
def test_no_reason_holds_up_a_stop_or_a_narrowing(client, database, reason, kept):
    assert stop(client, {"sites": ["creek"], "reason": reason}).status_code == 201
    assert stopped(database)
    (held,) = client.by("ana").get(f"{V1}/stops").json()["items"]
    assert held["reason"] == kept
    body = json.dumps({"sites": ["lake"], "to": "shadow", "reason": reason})
    assert client.by("bo").post(f"{V1}/narrowings", content=body, headers=JSON).status_code == 201
    assert scope_of(database).get_holder(LAKE) is None


@pytest.mark.parametrize(
    "beside",
    [
        {"sites": ["creek", ""]},
        {"sites": ["creek", "nowhere", "x" * 5_000, "\x00", "["]},
        {"sites": ["creek"], "cells": [{"site": "nowhere", "window": ""}]},
        {"cells": [{"site": "creek", "window": "day"}, {"site": "creek", "window": "dusk"}]},
        {"sites": ["creek"], "ticket": 7},
    ],
    ids=["nothing", "unknown sites", "an unknown cell", "an unknown window", "another field"],
)
def test_what_is_wrong_in_a_stop_takes_nothing_from_what_is_right(client, database, beside):
    assert stop(client, beside).status_code == 201
    assert stopped(database)


def test_a_full_house_of_bodies_holds_up_no_stop(client, database, monkeypatch):
    monkeypatch.setattr("api.limits.MAX_TOTAL_BYTES", 10)
    refused = client.by("ana").post(f"{V1}/approvals", json={"approvals": []})
    assert refused.status_code == 503
    assert stop(client).status_code == 201
    assert stopped(database)


def test_requests_that_hang_hold_up_no_stop(client, database, service, monkeypatch):
    go_on, hanging = threading.Event(), threading.Semaphore(0)

    def hang(*_):
        hanging.release()
        go_on.wait(20)
        return []

    monkeypatch.setattr("api.records.routes.ingest_items", hang)
    monkeypatch.setattr(
        service.authenticator, "find_cached_caller", lambda *_, **_more: None
    )  # and everybody is looked up
    box = {"Authorization": "Bearer ingest"}
    many = [
        threading.Thread(
            target=client.post, args=(f"{V1}/records",), kwargs={"json": [], "headers": box}
        )
        for _ in range(60)
    ]
    try:
        for one in many:
            one.start()
        for _ in range(40):  # as many as there are threads
            assert hanging.acquire(timeout=10)
        began = time.monotonic()
        assert stop(client).status_code == 201
        assert time.monotonic() - began < 5
        assert stopped(database)
    finally:
        go_on.set()
        for one in many:
            one.join()


def test_threads_are_kept_for_what_narrows():
    assert PRIORITY_THREADS.total_tokens > 0


def test_who_narrows_is_let_in_before_those_who_record(tmp_path):
    turns, came = WriteLock(5, tmp_path), []

    def take(name, *, first):
        with turns.hold(is_urgent=first):
            came.append(name)

    def started(name, *, first):
        thread = threading.Thread(target=take, args=(name,), kwargs={"first": first})
        thread.start()
        time.sleep(0.02)
        return thread

    with turns.hold():
        asked = [("batch 1", False), ("stop 1", True), ("batch 2", False), ("stop 2", True)]
        waiting = [started(name, first=first) for name, first in asked]
    for thread in waiting:
        thread.join()
    assert came == ["stop 1", "stop 2", "batch 1", "batch 2"]


def test_a_stop_that_finds_everything_stopped_waits_for_nobody(client, database):
    stop(client)
    with database.begin_write():  # somebody writes, and does not come to an end
        began = time.monotonic()
        assert stop(client).status_code == 200
        assert time.monotonic() - began < 2


def test_strangers_can_not_hide_among_stops(client):
    stranger = {"Authorization": "Bearer nobody"}
    answers = {client.post(f"{V1}/stops", json={}, headers=stranger).status_code for _ in range(60)}
    assert answers == {401, 429}


def test_a_stop_holds_while_a_policy_and_widenings_are_applied(client, database):
    tick(database, NOON, cells=(Cell("creek", "night"),))
    assert stop(client).status_code == 201
    approved(database, NOON)
    assert all(
        scope_of(database).is_stopped(cell) for cell in (CREEK, LAKE, Cell("creek", "night"))
    )


def test_an_operator_of_one_site_stops_it_among_others(client, database, door):
    door.let_in("eve", AssignedRole("operator", "bears", "creek"))
    body = {"sites": ["lake", "creek", "nowhere"]}
    assert client.by("eve").post(f"{V1}/stops", json=body).status_code == 201
    assert (stopped(database), stopped(database, LAKE)) == (True, False)
