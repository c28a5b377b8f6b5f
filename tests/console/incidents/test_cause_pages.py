"""The page that says where a version differs: from a cell and from a filter of divergences."""

import re
from threading import Event
from urllib.parse import urlencode

import pytest

from api.divergences import pages
from api.incidents.cause_text import describe_doubt
from api.incidents.routes import Cause
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import users
from rollout.features.incidents import incidents
from rollout.features.incidents.incident_causes import load_incident_cause
from rollout.features.incidents.incident_impact import load_incident_impact
from rollout.features.reports.figures.incident_cause import find_incident_cause
from rollout.kernel.statistics.value_search import ValueKind
from tests.console.divergences.divergence_rows import count
from tests.console.told_cases import newcomer
from tests.features.incidents.cause_town import (
    CHANGE,
    END,
    find_time,
    is_wrong,
    open_incident,
    tell_cases,
)
from tests.features.reports.figures.test_incident_cause import HOUR, build_symptoms, build_units

CELL = "/rollouts/bears/cells/creek/day"
FILTER = "/rollouts/bears/divergences?version=v1&site=creek&since=2027-06-03&is+camera=cam-1"


@pytest.fixture
def caused(service, clock):
    """Let v1 misread a new lens."""
    tell_cases(service.database)
    count(service.database, at=END)
    clock.advance(END - clock.now())


def follow_cause(browser, page):
    """Return the page behind a page's link to the cause, and the link."""
    path = re.search(r'href="/console(/rollouts/bears/cause[^"]*)"[^>]*>Find cause', page)[1]
    path = path.replace("&amp;", "&")
    text = browser.page(path)
    if "All others</th>" in text:  # readers of batches see no values
        has_change = "Before the change</th>" in text
        assert ("Cases since the change</th>" in text) == has_change
        assert ('data-label="Before"' in text) == has_change
    return text, path


def read_headline(page):
    return re.sub(r"<[^>]*>", "", re.search(r'<p class="lede">(.*?)</p>', page, re.DOTALL)[1])


def test_a_cell_links_to_its_cause_and_that_to_its_divergences(browser, caused):
    text, _ = follow_cause(browser, browser.as_("ana").page(CELL))
    assert "<h1>Where v1 differs, creek · day</h1>" in text
    assert "cases with lens = new differ in 32 of 64" in read_headline(text)
    assert "Since then</th>" in text
    assert "incident" not in text.partition("<main")[2].partition("</main>")[0].lower()
    link = re.search(r'href="/console(/[^"]*)"[^>]*>Show these', text)[1].replace("&amp;", "&")
    listed = browser.page(link)
    assert "32 divergences" in listed
    assert "32 of 64 compared cases" in listed  # the counts of the sentence
    assert f'name="since" value="{find_time(CHANGE).isoformat()}"' in listed


@pytest.mark.parametrize(
    ("source", "doubt"),
    [
        ("attribute", "Stands out only with form = new"),
        ("answer", "Stands out, but an answer follows from its case"),
    ],
)
def test_the_table_says_what_only_follows_from_a_new_value(source, doubt):
    codes, digits, differs = build_symptoms()
    digit = ValueKind("digit", ("0", "5"), digits, source=source)
    found = find_incident_cause(build_units(differs, codes, kinds=(digit,)), 300 * HOUR)
    doubts = [describe_doubt(finding, found.new_values) for finding in found.findings]
    assert doubts[:2] == [doubt, "New: can’t be told yet"]


def test_a_sentence_leads_to_its_cases_and_not_to_those_of_the_whole_days(browser, caused):
    """The span begins and ends within days on which other cases differ."""
    since, until = find_time(CHANGE + 11), find_time(CHANGE + 51)
    own = [n for n in range(CHANGE + 11, CHANGE + 51) if is_wrong(n)]
    query = urlencode({"version": "v1", "since": since.isoformat(), "until": until.isoformat()})
    page = browser.as_("ana").page(f"/rollouts/bears/divergences?{query}")
    assert f"{len(own)} divergences" in page
    assert f"{len(own)} of 40 compared cases" in page
    days = {"since": since.date().isoformat(), "until": until.date().isoformat()}
    assert f"{len(own)} of 40" not in browser.page(f"/rollouts/bears/divergences?{urlencode(days)}")
    refused = browser.page("/rollouts/bears/divergences?since=2027-06-02T05:00", 422)
    assert "Write a day as YYYY-MM-DD" in refused


def test_a_filter_of_divergences_is_kept(browser, caused):
    text, path = follow_cause(browser, browser.as_("ana").page(FILTER))
    assert "since=2027-06-03" in path
    assert "Cases with camera = cam-1 from" in text
    assert "is+camera=cam-1" in text.partition("Show these")[0]
    assert "lens = new" in read_headline(text)


@pytest.mark.slow
def test_who_may_be_asked_blind_is_led_to_whole_batches(browser, service, caused):
    newcomer(service, "nan", AssignedRole("viewer"), AssignedRole("reviewer"))
    text, path = follow_cause(browser, browser.as_("nan").page(FILTER))
    assert "since" not in path
    assert "camera" not in path
    assert "figures move in batches of 20 closed cases" in text
    refused = browser.page("/rollouts/bears/cause?since=2027-06-03", 422)
    assert "they could single out a case" in refused
    assert "differ in" not in refused


def test_reviewers_names_are_read_by_operators_alone(browser, caused):
    path = "/rollouts/bears/cause?site=creek"
    assert "reviewer = " in browser.as_("ana").page(path)
    assert "reviewer = " not in browser.as_("vic").page(path)
    browser.as_("cleo").page("/rollouts/bears/cause?site=lake", 403)
    browser.as_("rita").page(path, 403)


def test_without_a_judged_case_the_page_says_so(browser):
    text = browser.as_("ana").page("/rollouts/bears/cause")
    headline = read_headline(text)
    assert headline == "No case with a blind decision is counted in this time yet."
    browser.page("/rollouts/bears/cause?site=moon", 404)
    assert "Write a day" in browser.page("/rollouts/bears/cause?since=soon", 422)


def read_verdicts(page):
    """Return by value what a page says of it."""
    pattern = re.compile(
        r'<th role="rowheader" scope="row">(?:<a [^>]*>)?([^<]*)(?:</a>)?</th>'
        r'.*?data-label="Result">(.*?)</td></tr>'
    )
    rows = (pattern.search(row) for row in page.split("<tr "))
    return {row[1]: re.sub(r"<[^>]*>", "", row[2]).strip() for row in rows if row}


def test_a_comparison_has_the_same_verdict_on_every_page(browser, service, caused):
    open_incident(service.database)
    ana = users.load_local_caller(service.database, "ana")
    impact = load_incident_impact(service, ana, "bears", "I-1", at=END)
    loaded = load_incident_cause(service, ana, "bears", impact, at=END)
    cause = loaded.cause
    facts = Cause.model_validate(loaded).values
    verdicts = {
        f"{value.name} = {value.value}": describe_doubt(finding, cause.new_values) or "Stands out"
        for value, finding in zip(facts, cause.findings, strict=True)
    }
    assert {value.verdict for value in facts} > {"stands-out"}
    stands_out = {f"{v.name} = {v.value}" for v in facts if v.verdict == "stands-out"}
    span = {"since": loaded.since.isoformat(), "until": loaded.until.isoformat()}
    query = urlencode({"site": "creek", "window": "day", "version": "v1", **span})
    for path in ("incidents/I-1", f"cause?{query}"):
        page = browser.as_("ana").page(f"/rollouts/bears/{path}")
        shown = read_verdicts(page)
        assert shown == {name: verdicts[name] for name in shown}, path
        assert {name for name, text in shown.items() if text == "Stands out"} == stands_out
        assert "cases with lens = new differ" in read_headline(page)


def test_a_long_search_shows_its_progress_and_then_its_result(browser, caused, monkeypatch):
    may_end, load = Event(), pages.load_cause

    def load_slowly(*arguments, **options):
        assert may_end.wait(60)
        return load(*arguments, **options)

    monkeypatch.setattr(incidents, "PATIENCE", 0.05)
    monkeypatch.setattr(pages, "load_cause", load_slowly)
    path = "/rollouts/bears/cause?site=creek"
    answer = browser.as_("ana").get(f"/console{path}")
    assert (answer.status_code, answer.headers["refresh"]) == (200, "2")
    assert "Reading the cases" in answer.text
    assert "lens = new" not in answer.text
    may_end.set()
    monkeypatch.setattr(incidents, "PATIENCE", 60)
    assert "lens = new" in read_headline(browser.page(path))
