"""A long run works on one replica; the user's next request may reach another one."""

import time
from contextlib import contextmanager
from dataclasses import replace
from threading import Event

import pytest

from api.app import create_app
from api.console.divergences import cause
from api.console.reports import reports
from api.console.rollouts import policy
from rollout.services.access.authentication import Authenticator
from rollout.services.access.sign_in import SignIn
from rollout.services.engine.service import build_service
from rollout.services.engine.ticks import Ticker
from rollout.services.incidents import cause_runs
from rollout.services.policies import policies
from rollout.services.reports import archive
from tests.api.bears import STRICTER
from tests.console.conftest import Browsing
from tests.console.divergence_rows import count
from tests.console.page.test_report_runs import FIELDS
from tests.console.told_cases import CLOSED, some
from tests.factories import NOON
from tests.services.access.test_sign_in import QUICK
from tests.services.houses import chance
from tests.services.incidents.cause_town import END, tell_cases

POLICY = "/rollouts/bears/settings"
CAUSE = "/rollouts/bears/cause?site=creek"
LONG = 60.0


@pytest.fixture
def other_browser(browser, database, clock):
    """Give a window of the same user whose requests reach another replica."""
    made = build_service(database, Authenticator(database, clock), clock, chance)
    service = replace(made, sign_in=SignIn(database, clock, chance, QUICK))
    with Browsing(create_app(service), base_url="http://localhost:8000") as other:
        other.headers["Sec-Fetch-Site"] = "same-origin"
        other.cookies.jar = browser.cookies.jar  # one session
        yield other


@contextmanager
def held(monkeypatch, module, name):
    """Hold the first call of a function of a module; give what lets it go on."""
    may_end, whole, calls = Event(), getattr(module, name), []

    def hold(*arguments, **options):
        calls.append(name)
        if len(calls) == 1:
            assert may_end.wait(LONG)
        return whole(*arguments, **options)

    monkeypatch.setattr(module, name, hold)
    try:
        yield may_end
    finally:
        may_end.set()


def wait_for(browser, path, progress):
    """Return the first page of the run's replica without its progress."""
    for _ in range(600):
        page = browser.page(path)
        if progress not in page:
            return page
        time.sleep(0.1)
    return pytest.fail("the run does not end")


def test_a_plan_is_shown_by_its_replica_and_the_other_says_it_has_none(
    browser, other_browser, monkeypatch
):
    monkeypatch.setattr(policy, "PATIENCE", 0.05)
    with held(monkeypatch, policies, "preview_policy") as may_end:
        answer = browser.as_("ada").submit(POLICY, text=STRICTER)
        path = answer.headers["location"].removeprefix("/console")
        elsewhere = other_browser.page(path)
        assert "has no plan of yours" in elsewhere
        assert "What it would change" not in elsewhere
        assert "Planning the new text" in browser.page(path)
        monkeypatch.setattr(policy, "PATIENCE", LONG)
        again = other_browser.submit(POLICY, 200, text=STRICTER)  # as that page advises
        assert "What it would change" in again.text
        may_end.set()
        assert "What it would change" in wait_for(browser, path, "Planning the new text")
        assert "has no plan of yours" in other_browser.page(path)


@pytest.mark.slow
def test_a_report_made_elsewhere_is_in_the_list(browser, other_browser, service, monkeypatch):
    some(service.database)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    service.wall_clock.advance(CLOSED - NOON)
    monkeypatch.setattr(reports, "PATIENCE", 0.05)
    with held(monkeypatch, archive, "request_report") as may_end:
        answer = browser.as_("vic").submit("/reports", on="/reports", **FIELDS)
        path = answer.headers["location"].removeprefix("/console")
        elsewhere = other_browser.page(path)
        assert "makes no report of yours" in elsewhere
        assert "week of bears" not in elsewhere
        may_end.set()
        assert "is made" in wait_for(browser, path, "Making week")
    assert elsewhere.count("/reports/1/about") == 0
    assert other_browser.page(path).count("/reports/1/about") == 1


def test_a_cause_is_found_anew_by_the_other_replica(browser, other_browser, service, monkeypatch):
    tell_cases(service.database)
    count(service.database, at=END)
    service.wall_clock.advance(END - NOON)
    monkeypatch.setattr(cause_runs, "PATIENCE", 0.05)
    with held(monkeypatch, cause, "load_cause") as may_end:
        assert "Reading the cases" in browser.as_("ana").page(CAUSE)
        monkeypatch.setattr(cause_runs, "PATIENCE", LONG)
        elsewhere = other_browser.page(CAUSE)
        assert "lens = new" in elsewhere
        may_end.set()
        here = browser.page(CAUSE)
    assert here.partition("<main")[2] == elsewhere.partition("<main")[2]
