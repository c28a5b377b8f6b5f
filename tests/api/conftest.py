"""A replica of the service on each engine, asked by the callers that a test lets in."""

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from rollout.engine.decide.permissions import ROLES, AssignedRole, Caller
from rollout.kernel.errors import UnauthenticatedError
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.data.conftest import database, other, url
from tests.factories import NOON
from tests.features.reports.in_process import _reports_in_this_process

__all__ = [
    "_reports_in_this_process",
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
        self.callers = {
            role: Caller(role, role == "ingest", (AssignedRole(role),)) for role in ROLES
        }
        every = tuple(AssignedRole(role) for role in ROLES)
        self.callers |= {name: Caller(name, role_assignments=every) for name in ("ana", "bo", "cy")}

    def let_in(self, name, *rights, machine=False):
        self.callers[name] = Caller(name, machine, rights)

    def authenticate_key(self, text, at, **_):  # noqa: ARG002 - a door's form
        if text not in self.callers:
            raise UnauthenticatedError("no such key; ask an admin for one")
        return self.callers[text]

    def is_known(self, text):  # noqa: ARG002 - a door's form
        return True

    find_cached_caller = authenticate_session = authenticate_key

    def find_cached_session_caller(self, text, at, **_):  # noqa: ARG002 - a door's form
        return None

    def refresh(self):
        return None

    def write_last_uses(self, at):  # noqa: ARG002 - a door's form
        return False


@pytest.fixture
def door():
    return Doorkeeper()


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def service(database, door, clock):
    return build_service(database, door, clock, entropy=bytes)


class Asking(TestClient):
    """A client that asks as somebody: `client.by("ana").get(...)`."""

    def by(self, name):
        self.headers["Authorization"] = f"Bearer {name}"
        return self


@pytest.fixture
def client(service):
    with Asking(create_app(service), raise_server_exceptions=False) as asking:
        yield asking.by("ana")
