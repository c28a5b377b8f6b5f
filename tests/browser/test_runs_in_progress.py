"""Pages of long work while it goes on, in Chromium: wide, narrow, light and dark."""

from contextlib import contextmanager
from dataclasses import replace
from threading import Event
from unittest import mock

import pytest

from api.app import create_app
from api.divergences import pages
from api.policies import pages as policy
from api.reports import pages as reports
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.incidents import incidents
from rollout.features.policies import policies
from rollout.features.reports import archive
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.bears import STRICTER
from tests.browser.chromium import OPENED, TOO_WIDE, chromium, needs_chromium
from tests.browser.console_pages import windows
from tests.browser.looks import each_look, find_violations
from tests.browser.town import served
from tests.console.conftest import inhabited
from tests.data.databases import fresh
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import chance
from tests.features.incidents.cause_town import END, alarm_town

pytestmark = [needs_chromium, pytest.mark.enable_socket]
WIDTHS = (1280, 390)
LONG = 60.0
STAYING = "window.stop()"  # such a page loads itself again after a second or two


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Serve a creek that its guard narrowed; give a function that opens windows."""
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),  # tests sign in faster than people
        fresh("sqlite", tmp_path_factory.mktemp("runs")) as url,
    ):
        database, clock = Database(url), ManualClock(END)
        inhabited(database)
        alarm_town(database)
        service = build_service(database, Authenticator(database, clock), clock, chance)
        service = replace(service, sign_in=SignIn(database, clock, chance, QUICK))
        with (
            served(create_app(service)) as address,
            chromium() as browser,
            windows(browser, address) as made,
        ):
            yield made
        database.close()


@contextmanager
def held(monkeypatch, module, name, patience):
    """Hold a function of a module, so that its run is shown, until the block ends."""
    may_end, whole = Event(), getattr(module, name)

    def hold(*arguments, **options):
        assert may_end.wait(LONG)
        return whole(*arguments, **options)

    monkeypatch.setattr(module, name, hold)
    monkeypatch.setattr(patience, "PATIENCE", 0.05)
    try:
        yield
    finally:
        may_end.set()


def look(opened, user, path, progress):
    """Look at a page of a run in each size and colour scheme."""
    window = opened().as_(user)
    page = window.page
    for seen in each_look(page, WIDTHS):
        window.open(path).evaluate(STAYING)
        page.evaluate(OPENED)
        assert progress in page.locator("main").inner_text()
        assert find_violations(page) == [], seen
        assert page.evaluate(TOO_WIDE) <= 0


def test_a_search_for_a_cause(opened, monkeypatch):
    with held(monkeypatch, pages, "load_cause", incidents):
        look(opened, "ana", "/rollouts/bears/cause?site=creek", "Reading the cases")


def test_a_plan(opened, monkeypatch):
    with held(monkeypatch, policies, "preview_policy", policy):
        page = opened().as_("ada").open("/rollouts/bears/settings")
        page.fill("textarea[name=text]", STRICTER)
        page.click("button:has-text('Plan')")
        page.wait_for_url("**/settings?*")
        path = page.url.partition("/console")[2]
        look(opened, "ada", path, "Planning the new text")


def test_a_report(opened, monkeypatch):
    with held(monkeypatch, archive, "request_report", reports):
        page = opened().as_("vic").open("/reports")
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        page.click("form[action*=reports] button[type=submit], main form button >> nth=-1")
        page.wait_for_url("**/reports?*")
        path = page.url.partition("/console")[2]
        look(opened, "vic", path, "Making")
