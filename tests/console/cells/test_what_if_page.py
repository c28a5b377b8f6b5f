"""The page of a what-if: who sees it, a run that is left, cancelled and refused, and its result."""

import sys
from dataclasses import replace
from html import unescape

import pytest

from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.what_if.comparison import (
    WhatIfInputs,
    compare_policies,
    format_figure,
    list_cells,
)
from rollout.features.what_if.replayed_policy import WhatIfRecords
from rollout.features.what_if.runs import WhatIfRequest, WhatIfRun, WhatIfRuns
from tests.api.bears import POLICY
from tests.factories import DAY, NOON
from tests.features.reports.conftest import BEARS, records_of, story
from tests.features.reports.conftest import NOON as BEGAN

pytestmark = pytest.mark.slow

PATH = "/rollouts/bears/settings/what-if"
ENDLESS = (sys.executable, "-c", "import sys; sys.stdin.read()")


@pytest.fixture(autouse=True)
def made_runs(monkeypatch):
    """Let no run come to an end: what one gives is tested with the runs."""
    made = []

    def make(database):
        made.append(WhatIfRuns(database, ENDLESS))
        return made[-1]

    monkeypatch.setattr("api.console.WhatIfRuns", make)
    yield made
    for runs in made:
        runs.close()


@pytest.fixture(scope="module")
def result():
    cases = [case if n < 250 else replace(case, human=None) for n, case in enumerate(story())]
    cases = [case if n % 7 else replace(case, outcome=None) for n, case in enumerate(cases)]
    draft = BEARS.replace("audit: 30%", "audit: 60%").replace("units: 40", "units: 20")
    records = WhatIfRecords(records_of(cases))
    inputs = WhatIfInputs(BEARS, draft, records, bytes(32), BEGAN - DAY, BEGAN + 6 * DAY, 7)
    return compare_policies(inputs)


def test_who_reads_every_site_gets_the_page_with_the_policy_in_force(browser):
    for name, status in (("ana", 200), ("ada", 200), ("vic", 200), ("cleo", 403), ("rita", 403)):
        page = browser.as_(name).page(PATH, status)
        assert ("Run what if" in page) == (status == 200)
    for name in ("cleo", "rita"):
        answer = browser.as_(name).get(f"/console{PATH}?proposal=P-1")
        assert answer.status_code in {403, 404}
    assert POLICY.strip() in unescape(browser.as_("vic").page(PATH))
    assert f'href="/console{PATH}"' in browser.page("/rollouts/bears/settings")


def test_a_run_is_left_found_again_and_cancelled(browser, made_runs):
    browser.as_("ana").submit(PATH, text=POLICY, days="90")
    answer = browser.get(f"/console{PATH}")
    assert answer.headers["refresh"] == "3"
    assert "Comparing over the last 90 days" in answer.text
    assert "<textarea" not in answer.text, "a typed text would be lost when the page reloads"
    assert "Comparing" not in browser.as_("vic").page(PATH), "a run is its user's own"
    page = unescape(browser.as_("ana").submit(PATH, 422, text=POLICY, days="30").text)
    assert "Refused: a run of yours is not done" in page
    assert "`rollout what-if bears draft.yaml --days 30`" in page
    browser.submit(PATH, cancel="yes")
    answer = browser.get(f"/console{PATH}")
    assert "refresh" not in answer.headers
    assert "Run what if" in answer.text


def test_a_draft_with_a_fault_starts_nothing_and_stays_typed(browser, made_runs):
    draft = POLICY.replace("sites:", "sights:")
    page = unescape(browser.as_("ana").submit(PATH, 422, text=draft, days="30").text)
    assert "sights:" in page
    assert "listed with lines below" in page
    other = POLICY.replace("rollout: bears", "rollout: bees")
    page = unescape(browser.submit(PATH, 422, text=other, days="30").text)
    assert "Refused: the draft is of bees, not of bears" in page
    assert all(runs.find_comparison("ana", "bears", at=NOON) is None for runs in made_runs)


@pytest.mark.slow
def test_the_result_shows_each_cell_and_what_is_unknown(browser, made_runs, result):
    give_result(made_runs, browser.as_("ana"), result)
    page = unescape(browser.page(PATH))
    assert {cell.effect for cell in result.cells} >= {"unknown"}
    for row in list_cells(result):
        assert row.name in page
        for sentence in row.changes:
            assert sentence in page.replace("\N{NO-BREAK SPACE}", " ") or sentence in page
    assert "can't be known from these records from" in page
    assert "humans answered" in page.split("What would have been allowed")[0]
    maps = page.split("What would have been allowed")[1].split("Cell by cell")[0]
    assert maps.count('<svg class="chart map"') == 4
    for row in list_cells(result):
        assert maps.count(f">{row.name}</text>") == 4
    assert result.draft_hash[:4] in page
    known = [cell for cell in result.cells if cell.current.figures is not None]
    assert format_figure("model", known[0].current) in page


@pytest.mark.slow
def test_a_result_made_before_a_user_could_be_asked_is_shown_no_more(
    browser, made_runs, result, service
):
    give_result(made_runs, browser.as_("ana"), result)
    assert "Cell by cell" in browser.page(PATH)
    ada = users.load_local_caller(service.database, "ada")
    update = users.AccountUpdate(roles_to_grant=(AssignedRole("reviewer", "bears", "lake"),))
    users.update_account(service.database, ada, "ana", update, at=NOON)
    service.authenticator.refresh()
    page = browser.as_("ana").page(PATH)
    assert "Cell by cell" not in page
    assert "a user without reviews can" in page


def give_result(made_runs, browser, result):
    run = WhatIfRun("ana", WhatIfRequest("bears", POLICY), NOON)
    run.end(result)
    for runs in made_runs:
        runs._runs["ana"] = [run]
