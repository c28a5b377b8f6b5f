"""Why a version differs, in Chromium: the cause and the detector, wide, narrow, light and dark."""

import re
from dataclasses import replace
from unittest import mock

import pytest

from api.app import create_app
from rollout.data.database.session import Database
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
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

PAGES = {
    "incident": "/rollouts/bears/incidents/I-1",
    "cause": "/rollouts/bears/cause?site=creek&window=day&version=v1",
    "cause, refused": "/rollouts/bears/cause?since=soon",
}
WIDTHS = (1280, 390)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Serve a creek that its guard narrowed; give a function that opens windows."""
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),  # tests sign in faster than people
        fresh("sqlite", tmp_path_factory.mktemp("causes")) as url,
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


@pytest.mark.parametrize("page", PAGES)
def test_a_cause_is_accessible_and_fits_in_each_look(opened, page):
    window = opened().as_("ana")
    window.heard.clear()
    window.open(PAGES[page]).evaluate(OPENED)
    for look in each_look(window.page, WIDTHS):
        assert find_violations(window.page) == [], look
        assert window.page.evaluate(TOO_WIDE) <= 0
        assert [text for text in window.heard if "422" not in text] == []


def test_the_detector_is_read_without_scripts(opened):
    page = opened(script=False).as_("ana").open(PAGES["incident"])
    page.click("summary:has-text('Values of the detector')")
    table = page.locator("table:has(caption:has-text('The detector after each tick'))")
    last = table.locator("tbody tr").last.inner_text().split("\t")
    said = page.locator("p:has-text('Value at the alarm')").inner_text()
    value, against, records = re.search(
        r"alarm: ([\d,]+); threshold: 10,000\. By then (\d+) of (\d+)", said
    ).groups()
    assert last[1:] == [records, against, value]
