"""A plan that takes long: its progress, a page that can be left, and its outcome, shown once."""

import time
from threading import Event

import pytest

from api.policies import pages as policy_pages
from rollout.data.database.append_failures import DatabaseUnavailableError
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.policies import policies
from rollout.kernel.errors import PolicyRefusedError
from tests.api.bears import STRICTER
from tests.factories import NOON
from tests.page_text import collapse_space

pytestmark = pytest.mark.slow

PATH = "/rollouts/bears/settings"


class HeldPlans:
    """Plans only when `go` is set; `failure` is raised instead."""

    def __init__(self):
        self.go, self.stepped, self.failure = Event(), Event(), None
        self.preview_policy = policies.preview_policy

    def preview(self, *arguments, on_step=None, **options):
        on_step("a gate to supervised", 0, 2)
        self.stepped.set()
        assert self.go.wait(60)
        if self.failure is not None:
            raise self.failure
        return self.preview_policy(*arguments, **options)


@pytest.fixture
def held(monkeypatch):
    plans = HeldPlans()
    monkeypatch.setattr(policies, "preview_policy", plans.preview)
    monkeypatch.setattr(policy_pages, "PATIENCE", 0.05)
    yield plans
    plans.go.set()


def start(browser, held, path=PATH, text=STRICTER):
    answer = browser.submit(path, text=text)
    assert answer.headers["location"] == f"/console{path}?started=1"
    assert held.stepped.wait(60)


def finish(browser, held, path=PATH):
    """Let the plan be made; return the first page without its progress."""
    held.go.set()
    for _ in range(600):
        page = browser.page(path)
        if "Planning the new text" not in page:
            return page
        time.sleep(0.1)
    return pytest.fail("the plan is not made")


def test_a_long_plan_shows_its_step_and_can_be_left(browser, held):
    start(browser.as_("ada"), held)
    answer = browser.get(f"/console{PATH}")
    assert answer.headers["refresh"] == str(policy_pages.RELOAD_SECONDS)
    assert "Step 1 of 2: a gate to supervised" in collapse_space(answer.text)
    assert 'name="text"' not in answer.text  # a reload would lose what is typed
    page = finish(browser, held)
    assert "What it would change" in page
    assert "Apply" in page
    assert "What it would change" not in browser.page(PATH)  # shown once


def test_a_refused_text_comes_back_with_its_fault(browser, held):
    held.failure = PolicyRefusedError("two cells have one name; rename one")
    start(browser.as_("ada"), held)
    held.go.set()
    page = finish_refused(browser)
    assert "Refused: two cells have one name; rename one" in page
    assert "rollout: bears" in page


def finish_refused(browser):
    for _ in range(600):
        answer = browser.get(f"/console{PATH}")
        if answer.status_code == 422:
            return answer.text
        time.sleep(0.1)
    return pytest.fail("the plan is not refused")


def test_only_its_author_sees_a_plan_and_on_its_own_page_alone(browser, held):
    start(browser.as_("ada"), held)
    assert "Planning the new text" not in browser.page("/new")
    assert "Planning the new text" not in browser.as_("vic").page(PATH)
    held.go.set()
    assert "What it would change" not in browser.page(PATH)
    assert "What it would change" in finish(browser.as_("ada"), held)


@pytest.mark.parametrize(
    ("granted", "revoked"),
    [((), (AssignedRole("viewer"),)), ((AssignedRole("reviewer", "bears", "lake"),), ())],
    ids=["who may read less", "who may now be asked blind"],
)
def test_a_plan_is_not_shown_to_who_has_other_roles_since(browser, held, service, granted, revoked):
    ada = users.load_local_caller(service.database, "ada")
    viewer = users.AccountUpdate(roles_to_grant=(AssignedRole("viewer"),))
    users.update_account(service.database, ada, "ada", viewer, at=NOON)
    service.authenticator.refresh()
    start(browser.as_("ada"), held)
    assert "Planning the new text" in browser.page(PATH)
    changed = users.AccountUpdate(roles_to_grant=granted, roles_to_revoke=revoked)
    users.update_account(service.database, ada, "ada", changed, at=NOON)
    service.authenticator.refresh()
    assert "Planning the new text" not in browser.page(PATH)
    page = finish(browser, held)
    assert "What it would change" not in page
    assert "What it would change" not in browser.page(f"{PATH}?started=1")


def test_a_second_plan_waits_for_the_first(browser, held):
    start(browser.as_("ada"), held)
    text = STRICTER.replace("rollout: bears", "rollout: otters")
    refused = browser.submit("/new", 422, on="/settings", text=text).text
    assert "The plan for bears is not done; wait until it is" in refused
    assert "What it would change" in finish(browser, held)


def test_a_failing_database_is_said(browser, held):
    held.failure = DatabaseUnavailableError("the database does not respond")
    start(browser.as_("ada"), held)
    held.go.set()
    for _ in range(600):
        answer = browser.get(f"/console{PATH}")
        if answer.status_code != 200:
            break
        time.sleep(0.1)
    assert answer.status_code == 503
    assert "What it would change" not in browser.page(PATH)
