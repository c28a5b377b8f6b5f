"""No page and no form of a rollout does anything for who has every right, but in another one."""

import re
from importlib import import_module

import pytest

from api.app import load_parts
from api.console import PAGE_MODULES
from api.web_kit.page_context import TOKEN_FIELD
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import ROLES, SERVICE_ACCOUNT_ROLES, AssignedRole
from rollout.features.access import users
from rollout.features.access.sign_in import SignIn
from rollout.live.policy_application import apply_policy
from tests.api import bears
from tests.console.conftest import PASSWORD, token_of
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import chance

PAGES = [*PAGE_MODULES, *(part.pages for part in load_parts())]
ROUTES = [
    (method, route.path)
    for module in PAGES
    for route in import_module(f"api.{module}").router.routes
    for method in sorted(route.methods & {"GET", "POST"})
    if "{rollout}" in route.path
]
RIGHTS = tuple(
    AssignedRole(role, "wolves", group="safety" if role == "approver" else "")
    for role in ROLES
    if role not in SERVICE_ACCOUNT_ROLES or role == "viewer"
)


@pytest.fixture
def stranger(raised, browser, service, clock):
    """A browser of somebody with rights in another rollout, and what addresses of ours name."""
    apply_policy(service.database, bears.POLICY.replace("bears", "wolves"), Actor("zoe"), NOON)
    ada = users.load_local_caller(service.database, "ada")
    users.create_account(service.database, ada, "zed", at=NOON, role_assignments=RIGHTS)
    signing = SignIn(service.database, clock, chance, QUICK)
    signing.set_password(ada, "zed", PASSWORD, at=NOON)
    names = {"rollout": "bears", "proposal": next(iter(raised)), "cell": "creek/day"}
    return browser.as_("zed"), names | {"site": "creek", "window": "day"}


def address(path, names):
    return "/console" + re.sub(r"{(\w+)(?::path)?}", lambda match: names.get(match[1], "1"), path)


def test_the_routes_of_rollouts_are_met():
    assert {"/rollouts/{rollout}", "/rollouts/{rollout}/divergences"} <= {p for _, p in ROUTES}
    assert len(ROUTES) > 40


def test_nothing_of_a_rollout_is_there_for_who_has_no_right_in_it(stranger, service):
    browser, names = stranger
    before = bears.scope_of(service.database)
    token = token_of(browser.page("/glossary"))
    opened = {}
    for method, path in ROUTES:
        data = {TOKEN_FIELD: token, "reason": "r"} if method == "POST" else None
        answer = browser.request(
            method, address(path, names), data=data, follow_redirects=method == "GET"
        )
        if answer.status_code != 404:
            opened[f"{method} {path}"] = answer.status_code
    assert opened == {}
    assert bears.scope_of(service.database) == before
