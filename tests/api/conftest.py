"""A replica of the service on each engine, asked by whoever a test lets in."""

import pytest
from starlette.testclient import TestClient

from api.app import create
from rollout.core.errors import Unauthenticated
from rollout.core.scope.permissions import ROLES, Caller, Right
from rollout.services.engine.service import service_on
from rollout.services.support.clock import SetClock
from tests.factories import NOON
from tests.store.conftest import _nothing_left_running, database, other, url

__all__ = [
    "_nothing_left_running",
    "client",
    "clock",
    "database",
    "door",
    "other",
    "service",
    "url",
]


class Doorkeeper:
    """Let in whom a test names: the token is the caller's name, `viewer` to `admin` are there."""

    def __init__(self):
        self.callers = {role: Caller(role, role == "ingest", (Right(role),)) for role in ROLES}
        every = tuple(Right(role) for role in ROLES)
        self.callers |= {name: Caller(name, rights=every) for name in ("ana", "bo", "cy")}

    def let_in(self, name, *rights, machine=False):
        self.callers[name] = Caller(name, machine, rights)

    def caller_of_key(self, text, at, *, csrf=None):  # noqa: ARG002 - a door's form
        if text not in self.callers:
            raise Unauthenticated("no such key; ask an admin for one")
        return self.callers[text]

    at_hand = caller_of_session = caller_of_key

    def session_at_hand(self, text, at):  # noqa: ARG002 - a door's form
        return None

    def note_uses(self, at):  # noqa: ARG002 - a door's form
        return False


@pytest.fixture
def door():
    return Doorkeeper()


@pytest.fixture
def clock():
    return SetClock(NOON)


@pytest.fixture
def service(database, door, clock):
    return service_on(database, door, clock, entropy=bytes)


class Asking(TestClient):
    """A client that asks as somebody: `client.by("ana").get(...)`."""

    def by(self, name):
        self.headers["Authorization"] = f"Bearer {name}"
        return self


@pytest.fixture
def client(service):
    with Asking(create(service), raise_server_exceptions=False) as asking:
        yield asking.by("ana")
