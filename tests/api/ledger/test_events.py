"""Server-sent events: told of each change, alive in silence, over with the rights."""

import json
import socket
import threading
from contextlib import aclosing

import anyio
import httpx2
import pytest
import uvicorn

from api.app import create_app
from api.ledger import routes
from api.ledger.routes import EventStreams, get_streams, stream_changes
from rollout.engine.decide.permissions import AssignedRole
from rollout.live.clock import SystemClock
from rollout.live.service import build_service
from tests.api.bears import V1, founded, tick
from tests.api.test_shell import problem_of
from tests.factories import NOON

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def bears(database):
    founded(database, NOON)


@pytest.fixture
def quick(monkeypatch):
    """Look often, so that a test waits for nothing."""
    monkeypatch.setattr(routes, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(routes, "COMMENT_SECONDS", 0.02)


async def yes():
    return True


def heard(service, count, *, last=None, streams=None, allowed=yes, between=None):
    """Return the first events of a stream; `between` is done after the first of them."""

    async def listen():
        found = []
        told = stream_changes(service, streams or EventStreams(), "bears", last, allowed)
        async with aclosing(told):
            async for event in told:
                found.append(event)
                if len(found) == 1 and between is not None:
                    await anyio.to_thread.run_sync(between)
                if len(found) == count:
                    break
        return found

    return anyio.run(listen)


def test_the_present_revision_comes_first_and_then_each_change(
    service, database, clock, quick, bears
):
    def change():
        tick(database, NOON)
        clock.since_boot += 1

    first, second = heard(service, 2, between=change)
    assert first.startswith("id: 3\nevent: changed\ndata: ")
    assert first.endswith("\n\n")
    said = json.loads(second.split("data: ")[1])
    assert (said["rollout"], said["revision"]) == ("bears", 5)
    head = service.state_cache.reload_rollout("bears").head
    assert said["hash"] == head.hash


def test_who_has_heard_it_hears_only_that_the_stream_lives(service, quick, bears):
    assert heard(service, 2, last="3") == [": still here\n\n"] * 2
    assert heard(service, 1, last="2")[0].startswith("id: 3")


def test_a_stream_ends_with_the_rights_with_the_service_and_with_the_database(
    service, database, quick, bears
):
    asked = []

    async def three_times():
        asked.append(1)
        return len(asked) <= 3

    streams = EventStreams()
    assert len(heard(service, 99, streams=streams, allowed=three_times)) <= 3
    assert streams.open == 0
    assert len(heard(service, 99, streams=streams, between=streams.close)) == 1
    assert heard(service, 99, streams=streams) == []


def test_so_many_streams_and_no_more(client, monkeypatch, bears):
    monkeypatch.setattr(routes, "MAX_STREAMS", 0)
    assert problem_of(client.get(f"{V1}/events")) == (429, "too-many-requests")


def test_who_may_not_watch_hears_nothing(client, door, bears):
    assert problem_of(client.by("reviewer").get(f"{V1}/events")) == (403, "not-allowed")
    door.let_in("eve", AssignedRole("viewer", "wolves"))
    assert problem_of(client.by("eve").get(f"{V1}/events")) == (404, "unknown-rollout")
    assert problem_of(client.by("ana").get("/v1/rollouts/none/events")) == (404, "unknown-rollout")


@pytest.mark.slow
@on_sqlite
@pytest.mark.enable_socket  # a real server on this machine: how streams end shows in no other way
def test_an_open_stream_ends_when_rights_end_and_holds_no_shutdown(database, door, bears):
    service = build_service(database, door, SystemClock(), entropy=bytes)
    app = create_app(service)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=20)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            threading.Event().wait(0.01)
        url = f"http://127.0.0.1:{port}{V1}/events"
        with httpx2.Client(timeout=10) as asking:
            with asking.stream("GET", url, headers={"Authorization": "Bearer viewer"}) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("id: ")
                del door.callers["viewer"]
                assert ": still here" not in list(lines)
            with asking.stream("GET", url, headers={"Authorization": "Bearer ana"}) as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("id: ")
                assert get_streams(app).open == 1
                get_streams(app).close()
                server.should_exit = True
                list(lines)
    finally:
        server.should_exit = True
        thread.join(15)
    assert not thread.is_alive()
    assert get_streams(app).open == 0
