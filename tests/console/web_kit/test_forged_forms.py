"""Forms that come from elsewhere, or hold what no form should: each is refused, or harmless."""

from urllib.parse import quote

import pytest

from api.web_kit.page_context import TOKEN_FIELD, _check_form_token, read_form
from tests.browser.town import scope_of
from tests.console.conftest import token_of
from tests.console.incidents.attacked_town import (
    R,
    addressed,
    browser,
    hash_tables,
    made,
    opened,
    routes,
    sent,
)
from tests.features.houses import PASSWORD

pytestmark = pytest.mark.exhaustive

__all__ = ["browser", "made", "opened"]

ELSEWHERE = ("cross-site", "same-site", "")
WITHOUT = {"", "nonsense", "AAAA", "A" * 86}

# their caller has no session yet
WAYS_IN = {"/sign-in", "/sign-in/code", "/set-password"}


def calls_of(dependant):
    return {dependant.call}.union(*map(calls_of, dependant.dependencies))


def test_every_form_is_read_in_one_place_and_all_but_the_ways_in_carry_a_token():
    found = routes("POST")
    assert len(found) > 25
    for route in found:
        calls = calls_of(route.dependant)
        assert read_form in calls, route.path
        assert (_check_form_token in calls) is (route.path not in WAYS_IN), route.path
    assert {m for route in routes("GET") for m in route.methods} == {"GET"}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_no_form_of_another_site_does_anything(made, browser, where):
    browser.as_("ana")
    token, before = token_of(browser.page("/glossary")), hash_tables(made)
    for route in routes("POST"):
        answer = sent(browser, addressed(route), {TOKEN_FIELD: token, "reason": "r"}, where)
        assert answer.status_code == 403, route.path
    assert hash_tables(made) == before


@pytest.mark.parametrize("token", sorted(WITHOUT))
def test_no_form_without_its_token_does_anything(made, browser, token):
    browser.as_("ana")
    before = hash_tables(made)
    for route in routes("POST"):
        if route.path not in WAYS_IN:
            answer = sent(browser, addressed(route), {TOKEN_FIELD: token} if token else {})
            assert answer.status_code == 403, route.path
    assert hash_tables(made) == before


def test_a_token_of_another_session_or_of_one_that_is_over_opens_nothing(made, browser):
    browser.as_("bo")
    theirs = token_of(browser.page("/glossary"))
    browser.as_("ana")
    mine = token_of(browser.page("/glossary"))
    kept = browser.cookies["rollout"]
    before = hash_tables(made)
    stop = {"target": "all", "reason": "r"}
    confirm = f"/console{R}/stop/confirm"
    assert sent(browser, confirm, {TOKEN_FIELD: theirs, **stop}).status_code == 403
    assert hash_tables(made) == before
    assert sent(browser, "/console/sign-out", {TOKEN_FIELD: mine}).status_code == 303
    browser.cookies.set("rollout", kept, domain="localhost.local")
    made.clock.since_boot += 1  # a session's end holds within a second
    stops = scope_of(made).stops
    again = sent(browser, confirm, {TOKEN_FIELD: mine, **stop})
    assert (again.status_code, "You are signed out" in again.text) == (401, True)
    assert scope_of(made).stops == stops


def test_nobody_is_signed_in_or_out_by_another_site(made, browser):
    browser.as_("ana")
    token, cookie = token_of(browser.page("/glossary")), browser.cookies["rollout"]
    fields = {"name": "vic", "password": PASSWORD, "to": ""}
    for where in ELSEWHERE:
        assert sent(browser, "/console/sign-in", fields, where).status_code == 403
        assert sent(browser, "/console/sign-out", {TOKEN_FIELD: token}, where).status_code == 403
    assert browser.cookies["rollout"] == cookie
    assert ">ana<" in browser.page("/").replace(",", "<")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"page_token": "x", "target": "all"}', "application/json"),
        (b'--x\r\nContent-Disposition: form-data; name="target"\r\n\r\nall\r\n--x--\r\n',
         "multipart/form-data; boundary=x"),
        (b"target=all&reason=\xff\xfe", "application/x-www-form-urlencoded"),
        (b"&".join(b"f%d=" % n for n in range(2_500)), "application/x-www-form-urlencoded"),
    ],
    ids=["json", "multipart", "no text", "too many fields"],
)  # fmt: skip
def test_what_is_no_form_of_the_console_does_nothing(made, browser, body, kind):
    browser.as_("ana")
    before = hash_tables(made)
    answer = browser.post(f"/console{R}/stop/confirm", content=body, headers={"Content-Type": kind})
    assert answer.status_code in {403, 422}
    assert hash_tables(made) == before


def test_a_form_that_is_too_large_is_refused_before_it_is_read(made, browser):
    browser.as_("ana")
    before = hash_tables(made)
    answer = sent(browser, f"/console{R}/stop/confirm", {"reason": "x" * 9 * 2**20})
    assert answer.status_code == 413
    browser.cookies.clear()
    answer = sent(browser, "/console/sign-in", {"name": "x" * 100_000})
    assert answer.status_code == 413
    assert hash_tables(made) == before


LETTERS = ("a\0b", "\u202e" * 3, "<script>alert(1)</script>", "x" * 30_000, "\x1b[2J")


@pytest.mark.parametrize("letters", LETTERS, ids=["NUL", "turned", "script", "long", "escape"])
def test_no_letters_in_any_field_break_a_form_or_come_back_as_markup(made, browser, letters):
    browser.as_("eve")
    token = token_of(browser.page("/glossary"))
    fields = ("note", "reason", "target", "name", "text", "zone", "once", "case", "choice-0",
              "seen-revision", "seen-hash", "evidence", "approve", "what", "ends", "version",
              "email", "do", "access_revision", "began", "lever.alarm", "since",
              "view")  # fmt: skip
    for route in routes("POST"):
        if route.path in {"/sign-out", *WAYS_IN}:
            continue
        data = {TOKEN_FIELD: token, **dict.fromkeys(fields, letters)}
        answer = sent(browser, addressed(route), data)
        assert answer.status_code < 500, route.path
        assert "<script>alert" not in answer.text, route.path
    browser.cookies.clear()
    for path in ("/console/sign-in", "/console/set-password"):
        data = dict.fromkeys(("name", "password", "again", "token", "to"), letters[:20_000])
        answer = sent(browser, path, data)
        assert answer.status_code < 500
        assert "<script>alert" not in answer.text


@pytest.mark.parametrize("name", ["rollout-zone", "rollout-visits", "rollout-single-keys"])
@pytest.mark.parametrize("value", ["<script>alert(1)</script>", "../../etc/passwd", "1" * 3_000])
def test_no_cookie_comes_back_as_markup(browser, name, value):
    browser.as_("eve")
    browser.cookies.set(name, quote(value), domain="localhost.local")
    for path in ("/", "/settings", R, f"{R}/review"):
        assert "<script>alert" not in browser.page(path)
