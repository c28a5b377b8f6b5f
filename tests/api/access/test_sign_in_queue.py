"""A flood of sign-ins: the line is short, what is too much costs nothing, and stops are made."""

import asyncio
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Semaphore, Thread

import pytest
from argon2 import PasswordHasher

from api.app import create_app
from api.priority_threads import SignInQueueMiddleware
from rollout.features.access.credentials import MAX_CONCURRENT_HASHES, MAX_WAITING_HASHES
from rollout.features.access.sign_in import SignIn
from rollout.live.service import build_service
from tests.api.bears import CREEK, V1, founded, scope_of, widened
from tests.api.test_shell import problem_of
from tests.data.databases import on_sqlite
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK, counted_statements
from tests.features.houses import ADA, PASSWORD, chance, furnish

BODY = {"name": "bo", "password": PASSWORD}
FORM = "name=bo&password=x"
SECONDS = 30  # at most, until something that is waited for happens


class BlockedHasher(PasswordHasher):
    """Argon2 that waits until a test lets it go on."""

    def __init__(self):
        super().__init__(1, 8, 1)
        self.go, self.started = Event(), Semaphore(0)

    def verify(self, hash, password):  # noqa: A002 - the name that argon2 gives it
        self.started.release()
        assert self.go.wait(SECONDS)
        return super().verify(hash, password)


@pytest.fixture
def hasher():
    return BlockedHasher()


@pytest.fixture
def service(database, door, clock, hasher):
    furnish(database)
    SignIn(database, clock, chance, QUICK).set_password(ADA, "bo", PASSWORD, at=NOON)
    founded(database, NOON)
    widened(database, NOON, CREEK)
    made = build_service(database, door, clock, chance)
    return replace(made, sign_in=SignIn(database, clock, chance, hasher))


def wait_until(is_so):
    for _ in range(SECONDS * 100):
        if is_so():
            return
        Event().wait(0.01)
    raise AssertionError("it did not happen")


@contextmanager
def full_line(client, service, hasher):
    """Fill the line with sign-ins that hash or wait; give their answers, complete at the end."""
    answers = []

    def sign_in():
        answers.append(client.post("/v1/session", json=BODY))

    threads = [Thread(target=sign_in, daemon=True) for _ in range(MAX_WAITING_HASHES)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(MAX_CONCURRENT_HASHES):
            assert hasher.started.acquire(timeout=SECONDS)
        line = service.sign_in._passwords._threads._work_queue
        wait_until(lambda: line.qsize() == MAX_WAITING_HASHES - MAX_CONCURRENT_HASHES)
        yield answers
    finally:
        hasher.go.set()
        for thread in threads:
            thread.join(SECONDS)


@pytest.mark.slow
def test_what_is_too_much_is_refused_at_once_and_a_stop_is_made(client, service, database, hasher):
    with full_line(client, service, hasher) as answers:
        with counted_statements(database) as statements:
            refused = [
                client.post("/v1/session", json=BODY),
                client.post("/v1/session/link", json={"token": "t", "password": PASSWORD}),
            ]
            pages = [
                client.post(f"/console/{page}", content=FORM, follow_redirects=False)
                for page in ("sign-in", "sign-in/code", "set-password")
            ]
        assert statements == []
        assert {problem_of(answer) for answer in refused} == {(429, "too-many-requests")}
        assert {answer.status_code for answer in pages} == {429}
        assert {answer.headers["Retry-After"] for answer in (*refused, *pages)} == {"1"}
        assert pages[0].text == "Refused: too many sign in at once; try again in a few seconds."
        stop = client.by("bo").post(f"{V1}/stops", json={"sites": ["creek"]})
        assert stop.status_code == 201
        assert scope_of(database).is_stopped(CREEK)
        assert answers == []  # all are still in line
        assert not hasher.started.acquire(blocking=False)  # and one hashes
    assert {answer.status_code for answer in answers} == {200}
    assert client.post("/v1/session", json=BODY).status_code == 200


@on_sqlite  # PostgreSQL lets writers of different rows write at once
def test_a_stop_is_written_before_the_sign_ins_that_wait_to_write(
    client, service, database, hasher
):
    hasher.go.set()
    lock = database._write_lock
    threads = [
        Thread(target=client.post, args=("/v1/session",), kwargs={"json": BODY}, daemon=True)
        for _ in range(MAX_WAITING_HASHES)
    ]
    stop = Thread(
        target=client.by("bo").post, args=(f"{V1}/stops",), kwargs={"json": {"sites": ["creek"]}}
    )
    with counted_statements(database) as statements:
        with lock.hold():
            for thread in threads:
                thread.start()
            wait_until(lambda: len(lock._normal_queue) == MAX_WAITING_HASHES)
            stop.start()
            wait_until(lambda: len(lock._urgent_queue) == 1)
            del statements[:]
        for thread in (*threads, stop):
            thread.join(SECONDS)
    writes = [text for text in statements if text.startswith(("INSERT", "DELETE", "UPDATE"))]
    assert "pending_stops" in writes[0]
    assert any("sessions" in text for text in writes)
    assert scope_of(database).is_stopped(CREEK)


@on_sqlite  # no statement is made
def test_a_body_that_comes_slowly_holds_no_place(service):
    app = create_app(service)

    async def ask(receive):
        statuses = []

        async def send(message):
            statuses.append(message.get("status"))

        scope = {"type": "http", "method": "POST", "path": "/v1/session", "state": {}}
        scope |= {"query_string": b"", "headers": [], "client": ("10.0.0.9", 1)}
        scope |= {"scheme": "http", "server": ("x", 1), "http_version": "1.1", "root_path": ""}
        await app(scope, receive, send)
        return statuses[0]

    async def attack():
        is_over, waiting = asyncio.Event(), asyncio.Semaphore(0)

        async def receive_never():
            waiting.release()
            await is_over.wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def receive():
            return {"type": "http.request", "body": b"", "more_body": False}

        slow = [asyncio.create_task(ask(receive_never)) for _ in range(MAX_WAITING_HASHES)]
        for _ in slow:
            await waiting.acquire()
        status = await ask(receive)
        is_over.set()
        return status, await asyncio.gather(*slow)

    status, slow_statuses = asyncio.run(attack())
    assert status == 422
    assert set(slow_statuses) == {422}


def test_a_place_is_free_again_after_an_error():
    async def fail(*_):
        raise RuntimeError

    queue = SignInQueueMiddleware(fail)
    scope = {"type": "http", "method": "POST", "path": "/v1/session"}
    with pytest.raises(RuntimeError):
        asyncio.run(queue(scope, None, None))
    assert queue.in_progress == 0
