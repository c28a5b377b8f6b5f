"""Who knows an address opens no more by it than the links that lead them."""

import re

import pytest

from api.web_kit.page_context import TOKEN_FIELD
from tests.browser.town import find_lake_proposal, scope_of
from tests.console.conftest import token_of
from tests.console.incidents.attacked_town import R, addressed, browser, made, opened, routes, sent

pytestmark = pytest.mark.exhaustive

__all__ = ["browser", "made", "opened"]


REFUSED = {
    "rita": re.compile(r"/(proposals|divergences|cases|ledger|incidents|training|stops?|narrow"
                       r"|review-plan|cells|settings)|/rollouts/bears$|/reports/\d"),
    "vic": re.compile(r"/settings/users$|/settings/users/bo$|/ledger/access|/new$|/review/"
                      r"|/bears/review(?!-plan)|/narrow|bears/stop(/confirm)?$"),
    "cleo": re.compile(r"/ledger/access|/new$|bears/ledger|/reports/\d|/settings/users$"
                       r"|bears/review(?!-plan)"),
}  # fmt: skip
OWN = re.compile(r"^/console/(settings|ledger|divergences|stop|settings/keys|settings/second-factor"
                 r"|settings/notifications|revision)$"
                 r"|/users/bo/(link|keys)$")  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_nobody_opens_a_page_by_its_address_that_no_link_leads_them_to(browser, name):
    browser.as_(name)
    met = 0
    for route in routes("GET"):
        path = addressed(route)
        if REFUSED[name].search(path) and not OWN.search(path):
            answer = browser.get(path, follow_redirects=False)
            assert answer.status_code in {403, 404}, (path, answer.status_code)
            assert "v1" not in answer.text.replace("/v1", ""), path
            met += 1
    assert met >= 5


@pytest.mark.parametrize("name", ["vic", "ada", "rita", "cleo"])
def test_a_form_does_for_nobody_what_they_may_not(made, browser, name):
    lake = find_lake_proposal(made)
    browser.as_(name)
    token = token_of(browser.page("/glossary"))
    before = scope_of(made).revision
    for path, fields in {
        f"{R}/proposals/{lake.id}/approvals": {"evidence": lake.evidence_hash, "reason": "r"},
        f"{R}/proposals/{lake.id}/rejection": {"reason": "r"},
        f"{R}/approvals": {"approve": f"{lake.id}.{lake.evidence_hash}", "reason": "r"},
        f"{R}/stop/confirm": {"target": "site/lake"},
        f"{R}/narrow/confirm": {"target": "site/lake", "to": "shadow"},
        f"{R}/attempt": {"site": "lake", "window": "day", "version": "v1", "reason": "r"},
        f"{R}/stops/S-1/resume": {},
        f"{R}/settings/deliveries/1": {},
        "/settings/users/zoe/link": {"access_revision": "999999"},
        "/settings/users/zoe/keys": {"once": "a"},
    }.items():
        answer = sent(browser, f"/console{path}", {TOKEN_FIELD: token, **fields})
        assert answer.status_code != 200, path
    scope = scope_of(made)
    assert scope.revision == before
    assert not scope.proposals[lake.id].approvals


def test_a_reader_of_one_site_is_told_nothing_of_what_happens_at_another(made, browser):
    browser.as_("cleo")
    told = browser.page("/")
    stops = [s for s in scope_of(made).stops.values() if {c.site for c in s.cells} == {"lake"}]
    assert stops
    assert "Stopped" not in told
    assert "stopped lake" not in told
    assert "no reason given" not in told
    assert "in the last hour" not in told
    browser.as_("ana")
    told = browser.page("/")
    assert "stopped lake" in told
    assert "in the last hour" in told
