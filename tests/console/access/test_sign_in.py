"""The ways in and out, what every page carries, and what no form of another site can do."""

import re
from datetime import timedelta

import pytest

from api.app import load_parts
from api.console import create_console
from api.web_kit.page_context import TOKEN_FIELD, _check_form_token
from rollout.features.access.keys import write_token
from rollout.features.access.users import create_sign_in_link, load_local_caller
from tests.console.conftest import token_of
from tests.factories import NOON
from tests.features.houses import PASSWORD

FOREIGN = {"Sec-Fetch-Site": "cross-site"}
WAYS_IN = {"/sign-in", "/sign-in/code", "/set-password"}


def test_the_bare_address_leads_to_the_sign_in_and_then_to_the_overview(browser):
    asked = browser.get("/")
    assert "Sign in to rollout" in asked.text
    fields = {"name": "ana", "password": PASSWORD, "to": "/console/"}
    assert "Sign out" in browser.post("/console/sign-in", data=fields).text


def test_a_wrong_password_comes_back_with_the_name_and_without_the_password(browser):
    fields = {"name": "ana", "password": "wrong horse", "to": "/console/ledger"}
    answer = browser.post("/console/sign-in", data=fields)
    assert answer.status_code == 422
    assert "<title>Error: Sign in" in answer.text
    assert 'value="ana"' in answer.text
    assert 'value="/console/ledger"' in answer.text
    assert "wrong horse" not in answer.text


@pytest.mark.parametrize(
    "to", ["//evil.example/", "https://evil.example/", "/console\\@evil", "/v1/me", "/console/\n"]
)
def test_nobody_is_led_to_another_site_after_signing_in(browser, to):
    fields = {"name": "ana", "password": PASSWORD, "to": to}
    answer = browser.post("/console/sign-in", data=fields, follow_redirects=False)
    assert answer.headers["location"] == "/console/"


def test_the_page_that_was_wanted_comes_after_signing_in(browser):
    asked = browser.get("/console/?kind=a%26b", follow_redirects=False)
    assert asked.headers["location"] == "/console/sign-in?to=/console/%3Fkind%3Da%2526b"


def test_password_fields_hide_what_is_typed_and_let_managers_fill_them(browser):
    for path, autocomplete in (("/sign-in", "current-password"), ("/set-password", "new-password")):
        page = browser.page(path)
        (field,) = re.findall(r'<input[^>]*id="password"[^>]*>', page)
        assert 'type="password"' in field
        assert f'autocomplete="{autocomplete}"' in field
        assert "onpaste" not in page


def test_signing_out_ends_the_session(browser, clock):
    browser.as_("ana")
    before = dict(browser.cookies)
    answer = browser.submit("/sign-out", on="/")
    assert answer.headers["location"] == "/console/sign-in"
    browser.cookies.update(before)
    clock.advance(timedelta(seconds=1))  # a session holds for half a second where it was seen
    assert browser.get("/console/", follow_redirects=False).status_code == 303


def test_a_link_sets_a_password_once(browser, service):
    ada = load_local_caller(service.database, "ada")
    made = create_sign_in_link(service.database, ada, "vic", at=NOON, secret=write_token(bytes(32)))
    fields = {"token": made, "name": "", "password": "a new long one", "again": "a new long one"}
    assert (
        browser.post("/console/set-password", data={**fields, "again": "other"}).status_code == 422
    )
    assert "Sign out" in browser.post("/console/set-password", data=fields).text
    browser.cookies.clear()
    assert browser.post("/console/set-password", data=fields).status_code == 422


def test_a_form_of_another_site_is_refused(browser):
    browser.as_("ana")
    token = token_of(browser.page("/"))
    answer = browser.post("/console/sign-out", data={TOKEN_FIELD: token}, headers=FOREIGN)
    assert answer.status_code == 403
    assert "Sign out" in browser.page("/")


@pytest.mark.parametrize("dest", ["image", "script", "iframe", "object"])
def test_what_a_page_loads_as_a_part_of_it_is_asked_by_nobody(browser, dest):
    """A case's picture may have any address: what it would open is not opened by who sees it."""
    browser.as_("ana")
    asked = {"Sec-Fetch-Dest": dest}
    assert browser.get("/console/", headers=asked, follow_redirects=False).status_code == 403
    assert browser.get("/v1/me", headers=asked).status_code == 403
    for opens in ("document", "empty"):
        assert browser.get("/console/", headers={"Sec-Fetch-Dest": opens}).status_code == 200


@pytest.mark.parametrize("token", ["", "QUJD", "ä"])
def test_a_form_without_its_own_token_is_refused(browser, token):
    browser.as_("ana")
    answer = browser.post("/console/sign-out", data={TOKEN_FIELD: token})
    assert answer.status_code == 403
    assert "Sign out" in browser.page("/")


def test_every_form_of_the_console_asks_for_its_token(service):
    """A route that changes something without asking for the token would be open to other sites."""

    def calls(dependant):
        yield dependant.call
        for part in dependant.dependencies:
            yield from calls(part)

    unguarded = [
        route.path
        for route in routes_of(create_console(service, parts=load_parts()))
        if route.methods - {"GET", "HEAD"} and _check_form_token not in set(calls(route.dependant))
    ]
    assert set(unguarded) == WAYS_IN


def routes_of(app):
    """Return the routes with what they depend on."""
    found = [route for route in app.routes if hasattr(route, "dependant")]
    assert found
    return found


def test_every_page_carries_the_strict_policy_and_may_be_framed_nowhere(browser):
    answer = browser.as_("ana").get("/console/")
    said = answer.headers["content-security-policy"]
    assert "default-src 'self'" in said
    assert "frame-ancestors 'none'" in said
    assert "unsafe" not in said
    assert answer.headers["x-frame-options"] == "DENY"
    assert "style=" not in answer.text
    assert "<style" not in answer.text


def test_the_revision_is_the_same_until_something_moves_or_a_minute_has_passed(browser, clock):
    page = browser.as_("ana").page("/")
    revision = page.split('data-revision="')[1].split('"')[0]
    at = page.split('data-revision-at="')[1].split('"')[0]
    asked = {"If-None-Match": f'"{revision}"'}
    assert browser.get(at, headers=asked).status_code == 304
    clock.advance(timedelta(minutes=1))
    assert browser.get(at, headers=asked).status_code == 200
    browser.cookies.clear()
    assert browser.get(at, headers=asked).status_code == 401


def test_assets_are_kept_for_a_year_under_their_hash_and_no_longer(browser):
    page = browser.page("/sign-in")
    sheet = page.split('rel="stylesheet" href="')[1].split('"')[0]
    assert "immutable" in browser.get(sheet).headers["cache-control"]
    bare = sheet.partition("?")[0]
    assert browser.get(bare).headers["cache-control"] == "no-cache"
    assert browser.get("/console/assets/page.py").status_code == 404


def test_strangers_find_the_ways_in_and_no_other_page(browser, service):
    pages = {
        r.path for r in routes_of(create_console(service, parts=load_parts())) if "GET" in r.methods
    }
    plain = sorted(path for path in pages if "{" not in path)
    assert len(plain) > 10
    opened = {p for p in plain if browser.get(f"/console{p}", follow_redirects=False).is_success}
    assert opened == WAYS_IN - {"/sign-in/code"}
