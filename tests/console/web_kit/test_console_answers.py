"""No answer changes anything, is taken for anything else, leads elsewhere or is long in coming."""

import re
import time
from unittest import mock
from urllib.parse import urljoin, urlsplit

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.web_kit.page_context import TOKEN_FIELD
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
from tests.console.test_every_page import Read
from tests.features.houses import PASSWORD

pytestmark = pytest.mark.exhaustive

__all__ = ["browser", "made", "opened"]


def changed(before, after):
    return {name for name in before if before[name] != after.get(name)}


# What may be read changes nothing but the note of what was shown

NOTES = {"exposures", "reviews", "sessions"}


@pytest.mark.parametrize("name", ["ana", "ada", "eve", "cleo"])
def test_no_page_changes_anything_but_the_note_of_what_was_shown(made, browser, name):
    browser.as_(name)
    before = hash_tables(made)
    heads = scope_of(made).revision
    for route in routes("GET"):
        browser.get(addressed(route), follow_redirects=False)
    moved = changed(before, hash_tables(made))
    assert moved <= NOTES, moved
    assert scope_of(made).revision == heads


# What each answer says of itself


@pytest.mark.parametrize("name", ["ada", "ana", "rita", ""])
def test_every_answer_is_framed_nowhere_and_taken_for_nothing_else(made, browser, name):
    if name:
        browser.as_(name)
    paths = [addressed(route) for route in routes("GET")]
    wrong = [f"/console{R}?from=x", "/console/nowhere", f"/console{R}/stop/done?stop=%00"]
    for path in (*paths, *wrong, f"/console{R}/reports/1/file?form=csv"):
        answer = browser.get(path, follow_redirects=False)
        headers = answer.headers
        assert answer.status_code < 500, path
        assert "frame-ancestors 'none'" in headers["content-security-policy"], path
        assert headers["x-frame-options"] == "DENY", path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["cache-control"] in {"no-store", "no-cache"}, path
        assert headers.get("location", "/console/").startswith("/console/"), path


def test_a_fault_is_a_page_under_the_same_policy_and_says_nothing_of_itself(made, browser):
    browser.as_("ana")
    with (
        mock.patch("api.stops.pages.load_stop_options", side_effect=ValueError("inner words")),
        TestClient(
            create_app(made.service),
            base_url="http://localhost:8000",
            raise_server_exceptions=False,
            cookies=dict(browser.cookies),
        ) as calm,
    ):
        answer = calm.get(f"/console{R}/stop")
    assert answer.status_code == 500
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-frame-options"] == "DENY"
    assert "inner words" not in answer.text


# Addresses that lead elsewhere

AWAY = (
    "https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)",
    "/console/\\evil", "/console", "\t/console/", "/console/\r\nSet-Cookie: a=b", " //evil.example",
    "/%2f/evil.example", "/console/../../v1", "/console//evil.example",
)  # fmt: skip


@pytest.mark.parametrize("to", AWAY)
def test_nobody_is_led_away_by_an_address(browser, to):
    fields = {"name": "ana", "password": PASSWORD, "to": to}
    answers = [sent(browser, "/console/sign-in", fields)]
    answers.append(browser.get("/console/sign-in", params={"to": to}, follow_redirects=False))
    token = token_of(browser.page("/glossary"))
    answers.append(sent(browser, "/console/review/keys", {TOKEN_FIELD: token, "to": to}))
    for answer in answers:
        assert answer.status_code == 303
        led = urljoin("http://localhost:8000/console/sign-in", answer.headers["location"])
        assert urlsplit(led).netloc == "localhost:8000", led
        assert "a=b" not in answer.headers.get("set-cookie", "")
    browser.cookies.clear()
    asked = browser.get("/console/sign-in", params={"to": to}).text
    assert re.search(r'name="to" value="/console/', asked)


MEDIA = {
    "script": "javascript:alert(1)",
    "Script": "JaVaScRiPt:alert(1)",
    "page": "data:text/html,<script>alert(1)</script>",
    "drawing": "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "broken": 'http://cam.local" onload="alert(1)',
    "header": "http://cam.local; script-src 'unsafe-inline'/7.jpg",
    "comma": "http://cam.local,*/7.jpg",
    "line": "http://cam.local\r\nX-Evil: 1/7.jpg",
    "star": "http://*/7.jpg",
    "named": "http://user:word@cam.local/7.jpg",
    "plain": "http://cam.local:8080/7.jpg",
}


def test_no_medium_of_a_case_is_more_than_a_picture_or_a_text(made, browser):
    at = made.clock.now()
    made.send(
        {"kind": "case", "key": "odd-media", "site": "creek", "occurred_at": at.isoformat()}
        | {"media": MEDIA, "attributes": {'x"onload=1': MEDIA["page"]}}
    )
    browser.as_("ana")
    pages = [browser.get(f"/console{R}/cases/odd-media")]
    browser.as_("ron")
    for _ in range(12):
        page = browser.get(f"/console{R}/review")
        if "cam.local" in page.text:
            pages.append(page)
            break
        form = re.search(r'action="(/console/rollouts/bears/review/\d+)"', page.text)[1]
        began = re.search(r'name="began" value="([^"]*)"', page.text)[1]
        fields = {TOKEN_FIELD: token_of(page.text), "began": began, "lever.alarm": "bear"}
        assert sent(browser, form, fields).status_code == 303
    assert len(pages) == 2
    for page in pages:
        read = Read(page.text)
        assert read.faults == []
        assert not [link for link in read.links if not link.startswith(("/", "#", "http"))]
        sources = re.findall(r'<img[^>]* src="([^"]*)"', page.text)
        assert all(one.startswith(("http", "data:image/")) for one in sources)
        policy = page.headers["content-security-policy"]
        assert "unsafe-inline" not in policy
        assert policy.count("script-src") == 1
        assert "*" not in policy
        assert "," not in policy
        assert "X-Evil" not in page.headers


# What ends calendars, numbers and patience

ENDS = ("0001-01-01", "1900-01-01", "9999-12-31", "0001-01-01T00:00", "9999-12-31T23:59-12:00",
        "nan", "1e999", "9" * 300, "-1", "\0", "x" * 4_000, "\u0661", "=", "AAAA")  # fmt: skip
ASKED = {
    "/divergences": ("since", "until", "cost", "is <b>"),
    "/divergences.csv": ("since", "until"),
    "": ("at", "from", "before"),
    "/ledger": ("since", "until", "who", "kind", "site", "before"),
    "/cases": ("key", "after"),
    "/proposals": ("state", "after"),
    "/settings": ("policy",),
    "/settings/deliveries": ("state", "before"),
    "/narrow/done": ("until", "count"),
    "/cells/creek/day": ("before",),
    "/approvals": ("p",),
}


@pytest.mark.parametrize("part", ASKED)
def test_no_parameter_of_a_page_breaks_it_or_keeps_it_busy(browser, part):
    browser.as_("ana")
    browser.cookies.set("rollout-zone", "Etc/GMT+12", domain="localhost.local")
    browser.cookies.set("rollout-visits", "99999999999.1", domain="localhost.local")
    for name in ASKED[part]:
        for value in ENDS:
            began = time.process_time()
            answer = browser.get(f"/console{R}{part}", params={name: value})
            assert answer.status_code < 500, (name, value)
            assert time.process_time() - began < 2, (name, value)


def test_a_day_before_all_calendars_makes_no_fault_of_a_report(browser):
    browser.as_("ana")
    for since, until in (("0001-01-01", ""), ("", "0001-01-01"), ("", "9999-12-31")):
        token = token_of(browser.page("/reports"))
        fields = {TOKEN_FIELD: token, "rollout": "bears", "since": since, "until": until}
        assert sent(browser, "/console/reports", fields).status_code in {303, 422}
