"""What is sent after a session ended is not done; what ends a session and what keeps it."""

import re
from datetime import timedelta

import pytest

from api.web_kit.page_context import TOKEN_FIELD
from rollout.features.access.authentication import SESSION_IDLE_TIMEOUT
from tests.api import bears
from tests.console.conftest import token_of
from tests.factories import HOUR
from tests.features.houses import PASSWORD

REASON = 'two cubs & "a" <b>cart</b>\nby the lake'


@pytest.fixture
def proposal(raised, clock):
    clock.advance(timedelta(minutes=1))
    return f"/rollouts/bears/proposals/{next(iter(raised))}"


def send_late(browser, clock, proposal):
    """Send a reason after the session ended; return the page that comes back."""
    page = browser.as_("ana").page(proposal)
    evidence = re.search(r'name="evidence" value="([^"]*)"', page)[1]
    clock.advance(SESSION_IDLE_TIMEOUT)
    fields = {TOKEN_FIELD: token_of(page), "evidence": evidence, "reason": REASON}
    headers = {"Referer": f"http://localhost:8000/console{proposal}"}
    return browser.post(f"/console{proposal}/approvals", data=fields, headers=headers)


def sign_in(browser, answer):
    """Sign in on the page that came back, whose hidden fields are sent with it."""
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', answer.text))
    fields = {**hidden, "name": "ana", "password": PASSWORD}
    return browser.post("/console/sign-in", data=fields, follow_redirects=False)


@pytest.mark.slow
def test_a_form_sent_after_the_session_ended_is_not_sent_and_leads_back_to_its_page(
    browser, clock, proposal, service
):
    asked = send_late(browser, clock, proposal)
    assert asked.status_code == 401
    assert "You are signed out, and nothing was sent" in asked.text
    assert "cubs" not in asked.text
    assert not next(iter(bears.scope_of(service.database).proposals.values())).approvals
    answer = sign_in(browser, asked)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/console{proposal}")


def test_an_open_page_that_polls_does_not_keep_its_session_alive(browser, clock):
    browser.as_("ana").page("/")
    polls = ({"url": "/console/revision"}, {"url": "/console/", "headers": {"X-Live": "1"}})
    for _ in range(3):
        clock.advance(HOUR / 2)
        assert [browser.get(**poll).status_code for poll in polls] == [200, 200]
    clock.advance(HOUR / 2)
    assert browser.get("/console/revision").status_code == 401


def test_a_page_that_is_opened_keeps_its_session_alive(browser, clock):
    browser.as_("ana").page("/")
    for _ in range(3):
        clock.advance(HOUR)
        browser.page("/")
