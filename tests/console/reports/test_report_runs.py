"""A report that takes long: its progress, a page that can be left, and why it failed."""

import time
from html import unescape
from threading import Event

import pytest

from api.reports import pages
from rollout.features.reports import archive
from rollout.features.reports.builder import NO_CALLBACKS, STEPS
from rollout.live.tick_passes import Ticker
from tests.console.told_cases import CLOSED, some
from tests.factories import NOON
from tests.page_text import collapse_space

pytestmark = pytest.mark.slow

FIELDS = {
    "rollout": "bears",
    "name": "week",
    "since": "",
    "until": "2027-06-01",
    "view": "operator",
}


class HeldReports:
    """Makes reports only when `go` is set; `failure` is raised instead."""

    def __init__(self):
        self.go, self.stepped, self.failure = Event(), Event(), None
        self.request_report = archive.request_report

    def make(self, *arguments, callbacks=NO_CALLBACKS):
        callbacks.on_step(STEPS[1], 1, len(STEPS))
        self.stepped.set()
        assert self.go.wait(60)
        if self.failure is not None:
            raise self.failure
        return self.request_report(*arguments)


@pytest.fixture
def held(service, clock, monkeypatch):
    some(service.database)
    Ticker(service.database, "bears", "one").tick(CLOSED)
    clock.advance(CLOSED - NOON)
    made = HeldReports()
    monkeypatch.setattr(archive, "request_report", made.make)
    monkeypatch.setattr(pages, "PATIENCE", 0.05)
    yield made
    made.go.set()


def start(browser, held, **more):
    answer = browser.as_("vic").submit("/reports", on="/reports", **FIELDS, **more)
    assert answer.headers["location"] == "/console/reports?started=1"
    assert held.stepped.wait(60)


def finish(browser, held):
    """Let the report be made, and wait until it is."""
    held.go.set()
    for _ in range(600):
        if "Making" not in browser.page("/reports"):
            return
        time.sleep(0.1)
    pytest.fail("the report is not made")


@pytest.mark.slow
def test_a_long_report_shows_its_step_and_can_be_left(browser, held):
    start(browser, held)
    answer = browser.get("/console/reports")
    assert answer.headers["refresh"] == "3"
    assert "Making week of bears" in answer.text
    assert f"Step 2 of 3: {STEPS[1]}" in collapse_space(answer.text)
    assert '<progress max="3" value="1"' in answer.text
    assert 'name="name"' not in answer.text, "a reload would lose what is typed"
    assert "Making" not in browser.as_("ana").page("/reports"), "a run is its user's own"
    finish(browser.as_("vic"), held)
    answer = browser.get("/console/reports")
    assert "refresh" not in answer.headers
    assert 'about">week of bears</a> is made' in answer.text
    assert "Create a report" in answer.text


def test_a_second_report_waits_for_the_first(browser, held):
    start(browser, held)
    refused = browser.submit("/reports", 422, on="/reports", **FIELDS)
    assert "Refused: week of bears is not done; wait until it is" in unescape(refused.text)


def test_a_report_that_fails_says_so(browser, held):
    held.failure = RuntimeError("the inside")
    start(browser, held)
    finish(browser, held)
    page = unescape(browser.page("/reports"))
    assert "week of bears was not made: it ended with RuntimeError" in page
    assert "the inside" not in page
    assert "Create a report" in page


def test_a_report_within_the_wait_leaves_no_notice(browser, held, monkeypatch):
    held.go.set()
    monkeypatch.setattr(pages, "PATIENCE", 60.0)
    answer = browser.as_("vic").submit("/reports", on="/reports", **FIELDS)
    assert answer.headers["location"].endswith("/about")
    assert "is made" not in browser.page("/reports")
