"""A busy town for those who mean ill: every route of the console, and what the tables hold."""

import re
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from unittest import mock

import pytest
from sqlalchemy import MetaData, create_engine

from api.app import create_app, load_parts
from api.console import PAGE_MODULES
from api.web_kit import page, page_context
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from tests.browser.town import START, busy, town
from tests.console.conftest import Browsing
from tests.data.databases import fresh
from tests.features.houses import PASSWORD

R = "/rollouts/bears"
FILLED = {
    "rollout": "bears", "proposal": "P-6", "incident": "I-1", "stop": "S-1", "report": "1",
    "number": "1", "cell": "creek/day", "key": "creek-0061", "name": "bo", "prefix": "abc",
    "delivery": "1",
}  # fmt: skip


def with_eve(made):
    """Let eve in, who reviews, reads and operates."""
    ada = users.load_local_caller(made.database, "ada")
    rights = (AssignedRole("reviewer"), AssignedRole("viewer"), AssignedRole("operator"))
    users.create_account(made.database, ada, "eve", at=START, role_assignments=rights)
    made.service.sign_in.set_password(ada, "eve", PASSWORD, at=START)


@contextmanager
def browsing(made):
    with Browsing(create_app(made.service), base_url="http://localhost:8000") as opened:
        opened.headers["Sec-Fetch-Site"] = "same-origin"
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),
        fresh("sqlite", tmp_path_factory.mktemp("town")) as url,
        town(url) as made_town,
    ):
        busy(made_town)
        with_eve(made_town)
        yield made_town


@pytest.fixture(scope="module")
def opened(made):
    with browsing(made) as browser:
        yield browser


@pytest.fixture
def browser(opened):
    opened.headers["Sec-Fetch-Site"] = "same-origin"
    opened.cookies.clear()
    return opened


def routes(method):
    """Return every route of the console that takes a method."""
    names = [*PAGE_MODULES, *(part.pages for part in load_parts())]
    pages = [import_module(f"api.{name}") for name in names]
    routes = [route for module in (page, page_context, *pages) for route in module.router.routes]
    return [route for route in routes if method in route.methods]


def addressed(route):
    path = route.path
    for name in re.findall(r"{(\w+)(?::path)?}", path):
        path = re.sub(rf"{{{name}(:path)?}}", FILLED[name], path)
    return f"/console{path}"


def hash_tables(made):
    """Return what each table holds, as a hash."""
    engine, tables = create_engine(made.url), MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = {
            t.name: sorted(map(str, connection.execute(t.select()))) for t in tables.sorted_tables
        }
    engine.dispose()
    return {name: sha256("\n".join(some).encode()).hexdigest() for name, some in rows.items()}


def sent(browser, path, data, where="same-origin"):
    """Send a form as a page of some site does; "" says nothing of where it came from."""
    browser.headers.pop("Sec-Fetch-Site", None)
    headers = {"Sec-Fetch-Site": where} if where else {}
    answer = browser.post(path, data=data, headers=headers, follow_redirects=False)
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    return answer
