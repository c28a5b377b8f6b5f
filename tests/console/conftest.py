"""A replica with the bears' rollout and people who sign in to the console.

Pages are made of what services answer, which is tested on each engine: here SQLite is enough, save
in modules that say `ON_BOTH_ENGINES = True` since nothing but pages asks some of their queries.
"""

import re
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.policies import pages as policy
from api.reports import pages
from api.web_kit.page_context import TOKEN_FIELD
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api import bears
from tests.console.told_cases import CLOSED, some
from tests.data.conftest import database, other
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance
from tests.features.reports.in_process import _reports_in_this_process
from tests.page_text import collapse_space

__all__ = ["_reports_in_this_process", "database", "other"]

PEOPLE = {
    "ada": (AssignedRole("admin"),),
    "ana": (AssignedRole("operator"), AssignedRole("viewer")),
    "bo": (AssignedRole("operator"), AssignedRole("viewer")),
    "sue": (AssignedRole("approver", group="safety"), AssignedRole("viewer")),
    "rita": (AssignedRole("reviewer"),),
    "vic": (AssignedRole("viewer"),),
    "cleo": (AssignedRole("operator", "bears", "creek"),),
}
"""Everybody signs in with `PASSWORD`; cleo operates one site alone."""


def pytest_generate_tests(metafunc):
    """Run the modules that ask for it on each engine."""
    if "url" in metafunc.fixturenames and getattr(metafunc.module, "ON_BOTH_ENGINES", False):
        metafunc.parametrize("url", ENGINES, indirect=True)


@pytest.fixture(autouse=True)
def _patient_requests(monkeypatch):
    """Let requests wait for their reports and plans, however busy the machine is."""
    monkeypatch.setattr(pages, "PATIENCE", 120.0)
    monkeypatch.setattr(policy, "PATIENCE", 120.0)


@pytest.fixture
def url(request, tmp_path):
    with fresh(getattr(request, "param", "sqlite"), tmp_path) as made:
        yield made


@filled_once
def inhabited(database):
    """Make the bears' rollout and everybody, each with a password."""
    bears.founded(database, NOON)
    users.create_first_admin(database, "ada", at=NOON)
    ada = users.load_local_caller(database, "ada")
    for name, rights in PEOPLE.items():
        if name != "ada":
            users.create_account(database, ada, name, at=NOON, role_assignments=rights)
    signing = SignIn(database, ManualClock(NOON), chance, QUICK)
    for name in PEOPLE:
        signing.set_password(ada, name, PASSWORD, at=NOON)


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def service(database, clock):
    inhabited(database)
    made = build_service(database, Authenticator(database, clock), clock, chance)
    return replace(made, sign_in=SignIn(database, clock, chance, QUICK))


@pytest.fixture
def told(service, clock):
    """Return a service with four divergences and two cases alike, all of them closed."""
    some(service.database)
    clock.advance(CLOSED - NOON)
    return service


@pytest.fixture
def raised(service):
    """Return the proposals that a tick raised, by id."""
    bears.tick(service.database, NOON, cells=(bears.CREEK, bears.LAKE))
    return bears.scope_of(service.database).proposals


class Browsing(TestClient):
    """A browser without scripts: `browser.as_("ana")`, then `page` and `submit` forms."""

    def as_(self, name):
        """Sign in, in a session of its own."""
        self.cookies.clear()
        fields = {"name": name, "password": PASSWORD, "to": ""}
        answer = self.post("/console/sign-in", data=fields, follow_redirects=False)
        assert answer.status_code == 303, answer.text
        return self

    def page(self, path, status=200):
        """Return the text of a page under /console."""
        answer = self.get(f"/console{path}")
        assert answer.status_code == status, (answer.status_code, answer.text[-900:])
        return collapse_space(answer.text)

    def submit(self, path, status=303, *, on=None, **fields):
        """Send a form with the token of the page that it stands on; return the answer."""
        token = token_of(self.page(on or path))
        answer = self.post(
            f"/console{path}", data={TOKEN_FIELD: token, **fields}, follow_redirects=False
        )
        assert answer.status_code == status, (answer.status_code, answer.text[-900:])
        return answer


def token_of(page):
    """Return the page's token from a form of the page."""
    return re.search(rf'name="{TOKEN_FIELD}" value="([^"]*)"', page)[1]


@pytest.fixture
def browser(service):
    with Browsing(create_app(service), base_url="http://localhost:8000") as made:
        made.headers["Sec-Fetch-Site"] = "same-origin"
        yield made
