"""The page of a rollout's review plan: what a reader may know of the evidence, in words."""

import re

import pytest

from rollout.live.tick_passes import Ticker
from tests.console.conftest import Browsing
from tests.console.told_cases import AT, CLOSED, judged, mia
from tests.factories import DAY

pytestmark = pytest.mark.slow

PATH = "/rollouts/bears/review-plan"


def read_text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def read_row(page, cell):
    """Return the texts of a cell's table row, after its name."""
    row = next(row for row in page.split("<tr ") if f">{cell}</a>" in row)
    return re.findall(r"<td [^>]*>(.*?)</td>", row)


def count(service, clock, n, at, model="none"):
    """Store judged cases that occurred at `at`, and count them once they are closed."""
    for number in range(n):
        judged(service.database, f"{at:%d}-{number}", model, "none", at=at)
    clock.advance(at + 2 * DAY - clock.now())
    Ticker(service.database, "bears", "one").tick(at + 2 * DAY)


def test_a_viewer_reads_what_each_cell_needs(browser: Browsing, service, clock):
    count(service, clock, 30, AT)
    page = browser.as_("vic").page(f"{PATH}?next=500")
    text = read_text(page)
    assert "The next 500 decisions: " in text
    to, outlook, decisions, *_ = read_row(page, "creek · day")
    assert (to, outlook) == ("Supervised", "On course")
    assert int(decisions.replace(",", "")) >= 70  # 109 in agreement open it at least, 30 are there
    assert read_row(page, "lake · night")[1:3] == ["No data", "–"]
    assert "No decided unit." in text
    assert "Stops, suspensions, freezes, waves and approvals are not included." in text
    assert "batches of 20" not in text
    assert f'href="/console{PATH}"' in browser.page("/rollouts/bears")
    only_lake = browser.page(f"{PATH}?site=lake")
    assert "creek · day" not in only_lake
    browser.page(f"{PATH}?next=0", 422)


def test_who_may_review_reads_whole_batches(browser, service, clock):
    mia(service)
    count(service, clock, 30, AT)
    before = read_row(browser.as_("mia").page(PATH), "creek · day")
    exact = read_row(browser.as_("vic").page(PATH), "creek · day")
    assert before == exact  # a batch never splits a slot
    count(service, clock, 1, CLOSED, model="bear")
    page = browser.as_("mia").page(PATH)
    assert "in batches of 20 decided units" in page
    after = read_row(page, "creek · day")
    assert after[:4] == before[:4]
    assert after[6:] == before[6:]
    assert read_row(browser.as_("vic").page(PATH), "creek · day")[6] != exact[6]


def test_only_who_may_read_the_rollout_reads_its_plan(browser, service, clock):
    browser.as_("rita").page(PATH, 403)
    page = browser.as_("cleo").page(PATH)
    assert "lake" not in page
    browser.page(f"{PATH}?site=lake", 403)


def test_a_rollout_of_too_many_cells_offers_its_sites(browser, monkeypatch):
    monkeypatch.setattr("rollout.features.cells.overview.MAX_PLANNED_CELLS", 2)
    page = browser.as_("vic").page(PATH)
    assert "too many cells for one plan: choose a site" in page
    assert "creek · day" in browser.page(f"{PATH}?site=creek")
