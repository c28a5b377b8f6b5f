"""Planted recall on a cell's page: beside that of the cases that occurred, and apart from it."""

import re

import pytest

from rollout.features.reports.figures import evidence_facts
from rollout.features.reports.figures.evidence_facts import PlantedRecall
from rollout.kernel.statistics.intervals import compute_share
from rollout.live.tick_passes import Ticker
from tests.console.told_cases import CLOSED

RECALL = PlantedRecall("alarm", "bear", compute_share(38, 40), compute_share(0, 0), missing=2)


@pytest.mark.slow
def test_the_cells_page_shows_both_shares_with_their_numbers(told, browser, database, monkeypatch):
    Ticker(database, "bears", "one").tick(CLOSED)
    page = browser.as_("vic").page("/rollouts/bears/cells/creek/day")
    assert "Planted cases of" not in page
    (box,) = re.findall(r'class="sayings"><p>(.*?)</p>', page)
    assert box.endswith('<span class="small">v1</span>')  # whose figures the box has
    monkeypatch.setattr(evidence_facts, "compute_planted_recall", lambda *_: (RECALL,))
    page = browser.page("/rollouts/bears/cells/creek/day")
    assert 'aria-label="Planted cases of v1"' in page
    assert 'scope="row">alarm: bear</th>' in page
    assert "<strong>95.0" in page
    assert "(n 40, 2 without a decision)" in page
    assert 'data-label="Of those that occurred">no data' in page
