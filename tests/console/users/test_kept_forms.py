"""A typed text outlives the session: for the same user, for 15 minutes, never sent by itself."""

import re
from datetime import timedelta
from html import unescape

import pytest

from api.console.page.form import TOKEN_FIELD
from api.console.page.kept_form import fill_form
from rollout.services.access.authentication import SESSION_IDLE_TIMEOUT
from rollout.services.access.kept_forms import FORM_LIFETIME
from tests.api import bears
from tests.console.conftest import token_of
from tests.factories import HOUR
from tests.services.houses import PASSWORD

REASON = 'two cubs & "a" <b>cart</b>\nby the lake'


@pytest.fixture
def proposal(raised, clock):
    clock.advance(timedelta(minutes=1))
    return f"/rollouts/bears/proposals/{next(iter(raised))}"


def send_late(browser, clock, proposal, fields):
    """Send a reason after the session ended; return the page that comes back."""
    page = browser.as_("ana").page(proposal)
    evidence = re.search(r'name="evidence" value="([^"]*)"', page)[1]
    clock.advance(SESSION_IDLE_TIMEOUT)
    known = {TOKEN_FIELD: token_of(page), "evidence": evidence}
    return post(browser, f"{proposal}/approvals", known | fields, referer=proposal)


def post(browser, path, fields, referer):
    headers = {"Referer": f"http://localhost:8000/console{referer}"}
    return browser.post(f"/console{path}", data=fields, headers=headers, follow_redirects=False)


def sign_in(browser, answer, name="ana"):
    """Sign in on the page that came back, whose hidden fields are sent with it."""
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', answer.text))
    fields = {**hidden, "name": name, "password": PASSWORD}
    return browser.post("/console/sign-in", data=fields, follow_redirects=False)


def typed_reason(page):
    return unescape(
        re.search(r'<textarea id="reason"[^>]*>\n?(.*?)</textarea>', page, re.DOTALL)[1]
    )


def test_a_reason_typed_before_the_session_ended_is_shown_again_and_not_sent(
    browser, clock, proposal, service
):
    asked = send_late(browser, clock, proposal, {"reason": REASON})
    assert asked.status_code == 401
    assert "You are signed out, and nothing was sent" in asked.text
    assert "cubs" not in asked.text
    shown = sign_in(browser, asked)
    assert shown.status_code == 200
    assert typed_reason(shown.text) == REASON
    assert "what you typed; nothing was sent" in shown.text
    assert "<b>cart" not in shown.text
    assert not next(iter(bears.scope_of(service.database).proposals.values())).approvals
    fields = {TOKEN_FIELD: token_of(shown.text), "reason": REASON}
    fields["evidence"] = re.search(r'name="evidence" value="([^"]*)"', shown.text)[1]
    assert post(browser, f"{proposal}/approvals", fields, proposal).status_code == 303


def test_another_user_gets_an_empty_form(browser, clock, proposal):
    answer = sign_in(browser, send_late(browser, clock, proposal, {"reason": REASON}), "bo")
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/console{proposal}"
    assert typed_reason(browser.page(proposal)) == ""


def test_after_fifteen_minutes_the_form_is_empty(browser, clock, proposal):
    asked = send_late(browser, clock, proposal, {"reason": REASON})
    clock.advance(FORM_LIFETIME)
    assert sign_in(browser, asked).status_code == 303


def test_evidence_that_changed_meanwhile_is_named(browser, clock, proposal):
    asked = send_late(browser, clock, proposal, {"reason": REASON, "evidence": "0" * 64})
    assert "The evidence has changed since" in sign_in(browser, asked).text
    asked = send_late(browser, clock, proposal, {"reason": REASON})
    assert "The evidence has changed since" not in sign_in(browser, asked).text


def test_a_wrong_password_keeps_the_form(browser, clock, proposal):
    asked = send_late(browser, clock, proposal, {"reason": REASON})
    hidden = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    again = browser.post("/console/sign-in", data={**hidden, "name": "ana", "password": "no"})
    assert again.status_code == 422
    assert typed_reason(sign_in(browser, again).text) == REASON


def test_a_form_whose_page_is_gone_shows_the_reason_on_the_overview(browser, clock, proposal):
    page = browser.as_("ana").page(proposal)
    clock.advance(SESSION_IDLE_TIMEOUT)
    fields = {TOKEN_FIELD: token_of(page), "reason": "two cubs"}
    path = f"{proposal}/approvals"  # the page that showed an error, which has no address
    shown = sign_in(browser, post(browser, path, fields, referer=path))
    assert "This page no longer has the form" in shown.text
    assert "You typed: “two cubs”" in shown.text


def test_who_signed_in_elsewhere_continues_with_the_form(browser, clock, proposal):
    asked = send_late(browser, clock, proposal, {"reason": REASON})
    sealed = re.search(r'name="kept" value="([^"]*)"', asked.text)[1]
    refused = browser.post("/console/sign-in/continue", data={"kept": sealed, "to": ""})
    assert refused.status_code == 401
    browser.as_("ana")
    shown = browser.post("/console/sign-in/continue", data={"kept": sealed, "to": ""})
    assert typed_reason(shown.text) == REASON


def test_forms_with_passwords_and_forged_ones_are_not_kept(browser, clock):
    page = browser.as_("ana").page("/settings")
    clock.advance(SESSION_IDLE_TIMEOUT)
    fields = {TOKEN_FIELD: token_of(page), "password": "a new long one"}
    assert post(browser, "/settings", fields, "/settings").status_code == 303
    forged = {TOKEN_FIELD: "A" * 86, "reason": REASON}
    path = "/rollouts/bears/proposals/P-1/approvals"
    assert post(browser, path, forged, path).status_code == 303


def test_choices_are_filled_and_hidden_fields_are_not():
    page = (
        '<form action="/b"><input type="hidden" name="h" value="new">'
        '<input type="radio" name="r" value="1" checked><input type="radio" name="r" value="2">'
        '<select name="s"><option value="a" selected>A</option>'
        '<option value="b">B</option></select>'
        '<input type="password" name="p"><button name="l" value="x">Bear <b>1</b></button></form>'
    )
    sent = {"h": ["old"], "r": ["2"], "s": ["b"], "p": ["secret"], "l": ["x"]}
    filled = fill_form(page, "/b", sent)
    assert 'value="1">' in filled.html
    assert 'value="2" checked>' in filled.html
    assert '<option value="a">A' in filled.html
    assert '<option value="b" selected>' in filled.html
    assert "secret" not in filled.html
    assert (filled.has_form, filled.hidden, filled.pressed) == (True, {"h": "new"}, "Bear 1")
    other = fill_form(page, "/other", sent)
    assert (other.html, other.has_form) == (page, False)


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
