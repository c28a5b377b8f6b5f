"""A long run works on one replica; the user's next request may reach another one."""

import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from threading import Event

import pytest

from api.app import create_app
from api.divergences import pages
from api.policies import pages as policy
from api.reports import pages as reports
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.incidents import incidents
from rollout.features.policies import policies
from rollout.features.reports import archive
from rollout.features.uploads.upload_runs import UploadOptions, UploadRequest, UploadRuns
from rollout.features.what_if.runs import WhatIfRequest, WhatIfRun, WhatIfRuns
from rollout.live.service import build_service
from rollout.live.tick_passes import Ticker
from tests.api.bears import POLICY as POLICY_TEXT
from tests.api.bears import STRICTER
from tests.console.cells.test_what_if_page import result
from tests.console.conftest import Browsing
from tests.console.divergences.divergence_rows import count
from tests.console.reports.test_report_runs import FIELDS
from tests.console.told_cases import CLOSED, some
from tests.factories import DAY, HOUR, NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import chance
from tests.features.incidents.cause_town import END, tell_cases

pytestmark = pytest.mark.slow

__all__ = ["result"]
POLICY = "/rollouts/bears/settings"
CAUSE = "/rollouts/bears/cause?site=creek"
WHAT_IF = f"{POLICY}/what-if"
FILES = "/files"
NOT_HERE = "has no run of yours"
ENDLESS = (sys.executable, "-c", "import sys; sys.stdin.read()")
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
    monkeypatch.setattr(incidents, "PATIENCE", 0.05)
    with held(monkeypatch, pages, "load_cause") as may_end:
        assert "Reading the cases" in browser.as_("ana").page(CAUSE)
        monkeypatch.setattr(incidents, "PATIENCE", LONG)
        elsewhere = other_browser.page(CAUSE)
        assert "lens = new" in elsewhere
        may_end.set()
        here = browser.page(CAUSE)
    assert here.partition("<main")[2] == elsewhere.partition("<main")[2]


@pytest.fixture
def made_runs(monkeypatch):
    """Let runs of what-ifs and files never end, and give those of each replica, oldest first."""
    made = {WhatIfRuns: [], UploadRuns: []}

    def make(kind, place):
        runs = kind(place, ENDLESS)
        made[kind].append(runs)
        return runs

    for kind in made:
        monkeypatch.setattr(f"api.console.{kind.__name__}", partial(make, kind))
    yield made
    for runs in (*made[WhatIfRuns], *made[UploadRuns]):
        runs.close()


@pytest.fixture
def here_and_elsewhere(made_runs, browser, other_browser):
    """Give two replicas' windows of one user, made after their runs are held back."""
    return browser.as_("ana"), other_browser


def test_a_what_if_of_another_replica_is_said_to_be_elsewhere_and_runs_again(here_and_elsewhere):
    here, elsewhere = here_and_elsewhere
    here.submit(WHAT_IF, text=POLICY_TEXT, days="30")
    assert "Comparing over the last 30" in here.page(WHAT_IF)
    page = elsewhere.page(WHAT_IF)
    assert NOT_HERE in page
    assert "run the draft again" in page
    elsewhere.submit(WHAT_IF, cancel="yes")  # ends nothing of the other replica
    assert "Comparing over the last 30" in here.page(WHAT_IF)
    elsewhere.submit(WHAT_IF, text=POLICY_TEXT, days="90")  # as that page advises
    page = elsewhere.page(WHAT_IF)
    assert "Comparing over the last 90" in page
    assert NOT_HERE not in page


@pytest.mark.slow
def test_the_result_of_a_what_if_is_on_each_replica_until_a_newer_one(
    here_and_elsewhere, made_runs, result
):
    here, elsewhere = here_and_elsewhere
    for runs, number in zip(made_runs[WhatIfRuns], (1, 2), strict=True):
        ended = replace(result, revision=7_000 + number)
        begun = NOON - DAY + number * HOUR
        run = WhatIfRun("ana", WhatIfRequest("bears", POLICY_TEXT), begun)
        run.end(ended)
        runs._runs["ana"] = [run]
        runs._end(run)
        for browser in (here, elsewhere):
            assert f"<dt>Revision</dt><dd>{ended.revision}</dd>" in browser.page(WHAT_IF)
    here.submit(WHAT_IF, text=POLICY_TEXT, days="90")
    assert "Comparing over the last 90" in here.page(WHAT_IF)
    assert "<dd>7002</dd>" in elsewhere.page(WHAT_IF)
    assert "<dt>Revision</dt>" not in elsewhere.as_("vic").page(WHAT_IF), "it is its user's own"


def test_files_of_another_replica_are_said_to_be_elsewhere(here_and_elsewhere, made_runs, tmp_path):
    here, elsewhere = here_and_elsewhere
    folder = tmp_path / "upload"
    folder.mkdir()
    made_runs[UploadRuns][0].run_files("ana", UploadRequest(folder, UploadOptions()), at=NOON)
    assert "You can leave this page" in here.page(FILES)
    for file in ("", "/policy", "/report"):
        page = elsewhere.page(f"{FILES}{file}")
        assert ("Send two files" in page, NOT_HERE in page) == (True, True)
    elsewhere.submit(FILES, cancel="yes")
    assert NOT_HERE in elsewhere.page(FILES)
    assert NOT_HERE not in here.page(FILES)
