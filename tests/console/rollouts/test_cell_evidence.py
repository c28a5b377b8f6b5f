"""The button that pauses a cell's evidence: for operators, in shadow."""

import pytest

CELL = "/rollouts/bears/cells/creek/day"
PATH = "/rollouts/bears/evidence"
PAUSE = {"site": "creek", "window": "day", "evidence": "watch"}


def test_an_operator_pauses_a_cell_and_resumes_it(browser):
    browser.as_("ana")
    assert "Pause evidence" in browser.page(CELL)
    browser.submit(PATH, 303, on=CELL, **PAUSE)
    page = browser.page(CELL)
    assert "Evidence paused since " in page
    assert " by ana. Nothing counts here" in page
    assert "ana paused the evidence" in page
    assert "Pause evidence" not in page
    browser.submit(PATH, 303, on=CELL, **{**PAUSE, "evidence": "count"})
    page = browser.page(CELL)
    assert "Evidence paused since" not in page
    assert "each version begins a new attempt" in page


@pytest.mark.parametrize("name", ["vic", "cleo"])
def test_only_an_operator_of_the_site_pauses(browser, name):
    browser.as_(name)
    lake = "/rollouts/bears/cells/lake/day"
    if name == "vic":
        assert "Pause evidence" not in browser.page(CELL)
    browser.submit(PATH, 403, on="/settings", **{**PAUSE, "site": "lake"})
    assert "Evidence paused" not in browser.as_("ana").page(lake)
