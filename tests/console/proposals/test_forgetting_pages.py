"""Pages of a rollout whose gates forget: which promise is made, and what the bound speaks of."""

from dataclasses import replace

import pytest

from rollout.reports.text.value_text import FORGETTING_NOTE
from tests.api import bears
from tests.console.raised_proposals import LIST
from tests.console.told_cases import mia
from tests.factories import AGREEMENT, NOON, build_evidence, counted

BLOCKS = ((450, 50), (450, 50), (395, 5), (395, 5))
REPAIRED = replace(counted(1690, 110), blocks={AGREEMENT.key: BLOCKS})
FORGETTING = bears.POLICY.replace("outside: blind", "outside: blind, forget: weekly")


@pytest.fixture
def _forgets(monkeypatch):
    monkeypatch.setattr("tests.api.bears.POLICY", FORGETTING)


@pytest.mark.usefixtures("_forgets")
def test_a_page_shows_the_promise_and_the_bound_of_a_stretch(service, browser):
    bears.tick(service.database, NOON, of=build_evidence(REPAIRED))
    page = " ".join(browser.as_("ana").page(f"{LIST}/P-1").replace("\xa0", " ").split())
    assert "As long as no stretch of a cell&#39;s units, from a block&#39;s start to now" in page
    assert "A block is a week, counted from Monday 00:00 UTC." in page
    assert page.count(FORGETTING_NOTE) == 1
    assert 'data-label="So far">93.9 %' in page
    assert "over blocks 450+50 450+50 395+5 395+5 (risk" in page
    mia(service)
    reviewer_page = browser.as_("mia").page(f"{LIST}/P-1")
    assert "over 4 blocks (risk" in reviewer_page  # the newest may be of a single unit
    assert "over blocks 450" not in reviewer_page
    overview = browser.as_("ana").page(LIST)
    assert "1,690 of 1,800" in overview
    assert "over blocks" not in overview
    assert FORGETTING_NOTE in browser.page("/rollouts/bears").replace("\xa0", " ")


def test_a_page_of_gates_that_keep_everything_says_nothing_of_it(browser, raised):
    page = browser.as_("ana").page(f"{LIST}/{next(iter(raised))}")
    assert "If the true average of a cell" in page
    assert "forget" not in page
    assert "forget" not in browser.page("/rollouts/bears")
