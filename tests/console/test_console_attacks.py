"""The console as somebody meets it who means ill: each attack is refused, or shown as text."""

import re
import time
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from itertools import count
from unittest import mock
from urllib.parse import quote, urljoin, urlsplit

import pytest
from sqlalchemy import MetaData, create_engine
from starlette.testclient import TestClient

from api.app import create
from api.console import assets, revision
from api.console.console import PAGES
from api.console.posted import TOKEN, _form, _signed
from rollout.core.rights import Right
from rollout.services import people
from tests.browser import town as towns
from tests.browser.town import HOUR, MINUTE, START, busy, scope_of, town
from tests.console.conftest import Browsing, token_of
from tests.console.test_every_page import Read
from tests.services.houses import PASSWORD
from tests.store.databases import fresh

R = "/rollouts/bears"
FILLED = {
    "rollout": "bears", "proposal": "P-6", "incident": "I-1", "stop": "S-1", "report": "1",
    "number": "1", "cell": "creek/day", "key": "creek-0061", "name": "bo", "prefix": "abc",
    "delivery": "1",
}  # fmt: skip


def with_eve(made):
    """Let eve in, who reviews, reads and operates."""
    ada = people.local_caller(made.database, "ada")
    rights = (Right("reviewer"), Right("viewer"), Right("operator"))
    people.add(made.database, ada, "eve", at=START, rights=rights)
    made.service.signing.set_password(ada, "eve", PASSWORD, at=START)


@contextmanager
def browsing(made):
    with Browsing(create(made.service), base_url="http://localhost:8000") as opened:
        opened.headers["Sec-Fetch-Site"] = "same-origin"
        yield opened


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    with (
        mock.patch("api.limits.STRANGERS_BURST", 1e9),
        fresh("sqlite", tmp_path_factory.mktemp("town")) as url,
        town(url) as found,
    ):
        busy(found)
        with_eve(found)
        yield found


@pytest.fixture(scope="module")
def opened(made):
    with browsing(made) as found:
        yield found


@pytest.fixture
def browser(opened):
    opened.headers["Sec-Fetch-Site"] = "same-origin"
    opened.cookies.clear()
    return opened


def routes(method):
    """Return every route of the console that takes a method."""
    pages = [import_module(f"api.console.pages.{name}") for name in PAGES]
    found = [route for module in (assets, revision, *pages) for route in module.router.routes]
    return [route for route in found if method in route.methods]


def addressed(route):
    path = route.path
    for name in re.findall(r"{(\w+)(?::path)?}", path):
        path = re.sub(rf"{{{name}(:path)?}}", FILLED[name], path)
    return f"/console{path}"


def held(made):
    """Return what each table holds, as a hash."""
    engine, tables = create_engine(made.url), MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = {
            t.name: sorted(map(str, connection.execute(t.select()))) for t in tables.sorted_tables
        }
    engine.dispose()
    return {name: sha256("\n".join(some).encode()).hexdigest() for name, some in rows.items()}


def changed(before, after):
    return {name for name in before if before[name] != after.get(name)}


# Forms that come from elsewhere

ELSEWHERE = ("cross-site", "same-site", "")
WITHOUT = {"", "nonsense", "AAAA", "A" * 86}


def sent(browser, path, data, where="same-origin"):
    """Send a form as a page of some site does; "" says nothing of where it came from."""
    browser.headers.pop("Sec-Fetch-Site", None)
    headers = {"Sec-Fetch-Site": where} if where else {}
    answer = browser.post(path, data=data, headers=headers, follow_redirects=False)
    browser.headers["Sec-Fetch-Site"] = "same-origin"
    return answer


def calls_of(dependant):
    return {dependant.call}.union(*map(calls_of, dependant.dependencies))


def test_every_form_is_read_in_one_place_and_all_but_the_ways_in_carry_a_token():
    strangers = {"/sign-in", "/come-in"}
    found = routes("POST")
    assert len(found) > 25
    for route in found:
        calls = calls_of(route.dependant)
        assert _form in calls, route.path
        assert (_signed in calls) is (route.path not in strangers), route.path
    assert {m for route in routes("GET") for m in route.methods} == {"GET"}


@pytest.mark.parametrize("where", ELSEWHERE)
def test_no_form_of_another_site_does_anything(made, browser, where):
    browser.as_("ana")
    token, before = token_of(browser.page("/words")), held(made)
    for route in routes("POST"):
        answer = sent(browser, addressed(route), {TOKEN: token, "reason": "r"}, where)
        assert answer.status_code == 403, route.path
    assert held(made) == before


@pytest.mark.parametrize("token", sorted(WITHOUT))
def test_no_form_without_its_token_does_anything(made, browser, token):
    browser.as_("ana")
    before = held(made)
    for route in routes("POST"):
        if route.path not in {"/sign-in", "/come-in"}:
            answer = sent(browser, addressed(route), {TOKEN: token} if token else {})
            assert answer.status_code == 403, route.path
    assert held(made) == before


def test_a_token_of_another_session_or_of_one_that_is_over_opens_nothing(made, browser):
    browser.as_("bo")
    theirs = token_of(browser.page("/words"))
    browser.as_("ana")
    mine = token_of(browser.page("/words"))
    kept = browser.cookies["rollout"]
    before = held(made)
    stop = {"reach": "all", "reason": "r"}
    confirm = f"/console{R}/stop/confirm"
    assert sent(browser, confirm, {TOKEN: theirs, **stop}).status_code == 403
    assert held(made) == before
    assert sent(browser, "/console/sign-out", {TOKEN: mine}).status_code == 303
    browser.cookies.set("rollout", kept, domain="localhost.local")
    made.clock.since_boot += 1  # a session's end holds within a second
    stops = scope_of(made).stops
    again = sent(browser, confirm, {TOKEN: mine, **stop})
    assert again.headers["location"].startswith("/console/sign-in")
    assert scope_of(made).stops == stops


def test_nobody_is_signed_in_or_out_by_another_site(made, browser):
    browser.as_("ana")
    token, cookie = token_of(browser.page("/words")), browser.cookies["rollout"]
    fields = {"name": "vic", "password": PASSWORD, "to": ""}
    for where in ELSEWHERE:
        assert sent(browser, "/console/sign-in", fields, where).status_code == 403
        assert sent(browser, "/console/sign-out", {TOKEN: token}, where).status_code == 403
    assert browser.cookies["rollout"] == cookie
    assert ">ana<" in browser.page("/").replace(",", "<")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"page_token": "x", "reach": "all"}', "application/json"),
        (b'--x\r\nContent-Disposition: form-data; name="reach"\r\n\r\nall\r\n--x--\r\n',
         "multipart/form-data; boundary=x"),
        (b"reach=all&reason=\xff\xfe", "application/x-www-form-urlencoded"),
        (b"&".join(b"f%d=" % n for n in range(2_500)), "application/x-www-form-urlencoded"),
    ],
    ids=["json", "multipart", "no text", "too many fields"],
)  # fmt: skip
def test_what_is_no_form_of_the_console_does_nothing(made, browser, body, kind):
    browser.as_("ana")
    before = held(made)
    answer = browser.post(f"/console{R}/stop/confirm", content=body, headers={"Content-Type": kind})
    assert answer.status_code in {403, 422}
    assert held(made) == before


def test_a_form_that_is_too_large_is_refused_before_it_is_read(made, browser):
    browser.as_("ana")
    before = held(made)
    answer = sent(browser, f"/console{R}/stop/confirm", {"reason": "x" * 9 * 2**20})
    assert answer.status_code == 413
    browser.cookies.clear()
    answer = sent(browser, "/console/sign-in", {"name": "x" * 100_000})
    assert answer.status_code == 413
    assert held(made) == before


# What may be read changes nothing but the note of what was shown

NOTES = {"shown", "told", "reviews", "sessions", "report_readings"}


@pytest.mark.parametrize("name", ["ana", "ada", "eve", "cleo"])
def test_no_page_changes_anything_but_the_note_of_what_was_shown(made, browser, name):
    browser.as_(name)
    before = held(made)
    heads = scope_of(made).revision
    for route in routes("GET"):
        browser.get(addressed(route), follow_redirects=False)
    moved = changed(before, held(made))
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
        mock.patch("api.console.pages.stop.stoppable", side_effect=ValueError("inner words")),
        TestClient(create(made.service), base_url="http://localhost:8000",
                   raise_server_exceptions=False, cookies=dict(browser.cookies)) as calm,
    ):  # fmt: skip
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
    token = token_of(browser.page("/words"))
    answers.append(sent(browser, "/console/review/keys", {TOKEN: token, "to": to}))
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
        fields = {TOKEN: token_of(page.text), "began": began, "lever.alarm": "bear"}
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
        fields = {TOKEN: token, "rollout": "bears", "since": since, "until": until}
        assert sent(browser, "/console/reports", fields).status_code in {303, 422}


LETTERS = ("a\0b", "\u202e" * 3, "<script>alert(1)</script>", "x" * 30_000, "\x1b[2J")


@pytest.mark.parametrize("letters", LETTERS, ids=["NUL", "turned", "script", "long", "escape"])
def test_no_letters_in_any_field_break_a_form_or_come_back_as_markup(made, browser, letters):
    browser.as_("eve")
    token = token_of(browser.page("/words"))
    fields = ("note", "reason", "reach", "name", "text", "zone", "once", "case", "choice-0",
              "seen-revision", "seen-hash", "evidence", "approve", "what", "ends", "version",
              "email", "do", "house", "began", "lever.alarm", "since", "view")  # fmt: skip
    for route in routes("POST"):
        if route.path in {"/sign-out", "/sign-in", "/come-in"}:
            continue
        data = {TOKEN: token, **dict.fromkeys(fields, letters)}
        answer = sent(browser, addressed(route), data)
        assert answer.status_code < 500, route.path
        assert "<script>alert" not in answer.text, route.path
    browser.cookies.clear()
    for path in ("/console/sign-in", "/console/come-in"):
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


# Rights

REFUSED = {
    "rita": re.compile(r"/(proposals|divergences|cases|ledger|incidents|training|stops?|narrow"
                       r"|cells|settings)|/rollouts/bears$|/reports/\d"),
    "vic": re.compile(r"/settings/people$|/settings/people/bo$|/house|/new$|/review/|/bears/review"
                      r"|/narrow|bears/stop(/confirm)?$"),
    "cleo": re.compile(r"/house|/new$|bears/ledger|/reports/\d|/settings/people$|bears/review"),
}  # fmt: skip
OWN = re.compile(r"^/console/(settings|ledger|divergences|stop|settings/keys|revision)$"
                 r"|/people/bo/(link|keys)$")  # fmt: skip


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
    lake = next(p for p in scope_of(made).proposals.values() if p.cell.site == "lake")
    browser.as_(name)
    token = token_of(browser.page("/words"))
    before = scope_of(made).revision
    for path, fields in {
        f"{R}/proposals/{lake.id}/approvals": {"evidence": lake.evidence, "reason": "r"},
        f"{R}/proposals/{lake.id}/rejection": {"reason": "r"},
        f"{R}/approvals": {"approve": f"{lake.id}.{lake.evidence}", "reason": "r"},
        f"{R}/stop/confirm": {"reach": "site/lake"},
        f"{R}/narrow/confirm": {"reach": "site/lake", "to": "shadow"},
        f"{R}/stops/S-1/resume": {},
        f"{R}/settings/deliveries/1": {},
        "/settings/people/zoe/link": {"house": "999999"},
        "/settings/people/zoe/keys": {"once": "a"},
    }.items():
        answer = sent(browser, f"/console{path}", {TOKEN: token, **fields})
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
    assert "stops 1 cell" not in told
    assert "in the last hour" not in told
    browser.as_("ana")
    told = browser.page("/")
    assert "stops 1 cell" in told
    assert "in the last hour" in told


# Two worlds that differ in what the model said of one open case

VARIES = re.compile(r'name="(page_token|once)" value="[^"]*"')
NOT_TOLD = {"content-length", "set-cookie"}
FILES = ("/divergences.csv", "/training", "/training/manifest", "/cases/open-one", "/ledger/lines")


def counted():
    numbers = count(1)
    return lambda size=38: next(numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


@contextmanager
def world(folder, says):
    """Found a town where rita has judged a case that eve may still judge, seen by a guard."""
    text = towns.POLICY.replace("verdicts: 1}", "verdicts: 1, second_verdict: 100%}")
    with (
        mock.patch("api.limits.STRANGERS_BURST", 1e9),
        mock.patch.object(towns, "chance", counted()),
        mock.patch.object(towns, "POLICY", text.replace("grace: 1h", "grace: 3h")),
        fresh("sqlite", folder) as url,
        town(url, odd=False) as found,
        browsing(found) as opened,
    ):
        with_eve(found)
        found.hours(8)
        at = found.clock.now() - MINUTE
        case = {"kind": "case", "key": "open-one", "site": "creek", "occurred_at": at.isoformat()}
        sure = {"bear": 0.9, "none": 0.6}[says]
        said = {"kind": "prediction", "key": "open-one", "version": "v1", "confidence": sure}
        found.send(case, {**said, "answers": {"alarm": says}})
        found.clock.move(MINUTE)
        opened.as_("rita")
        page = opened.page(f"{R}/review")
        form = re.search(r'action="(/console/rollouts/bears/review/\d+)"', page)[1]
        began = re.search(r'name="began" value="([^"]*)"', page)[1]
        fields = {TOKEN: token_of(page), "began": began, "lever.alarm": "bear"}
        assert sent(opened, form, fields).status_code == 303
        for _ in range(2):
            found.clock.move(HOUR)
            found.tick()
        yield opened


def everything(browser, name):
    """Return all that somebody comes to by pages, links and files: status, headers, text."""
    pages = pytest.importorskip("tests.browser.test_console_pages").PAGES
    browser.as_(name)
    waiting = [f"/console{path}" for _, path in pages.values()]
    waiting += [f"/console{R}{path}" for path in FILES]
    seen = {}
    while waiting:
        path = waiting.pop().partition("#")[0]
        if path in seen:
            continue
        answer = browser.get(path, follow_redirects=False)
        headers = {k: v for k, v in answer.headers.items() if k not in NOT_TOLD}
        seen[path] = (answer.status_code, headers, VARIES.sub("", answer.text))
        if "text/html" in headers.get("content-type", "") and len(seen) < 140:
            links = Read(answer.text).links
            waiting += [
                one for one in links if one.startswith("/console/") and "/creek-0" not in one
            ]
    fields = {TOKEN: token_of(browser.page("/words")), "rollout": "bears", "name": "now"}
    made = sent(browser, "/console/reports", fields)
    report = made.headers["location"].removesuffix("/about")
    for form in ("json", "csv", "markdown"):
        seen[form] = browser.get(f"{report}/file?form={form}").text
    return seen


def test_who_may_still_judge_a_case_is_told_nothing_of_the_model_by_any_page(tmp_path):
    found = []
    for says in ("bear", "none"):
        folder = tmp_path / says
        folder.mkdir()
        with world(folder, says) as opened:
            found.append((everything(opened, "eve"), everything(opened, "vic")))
    (one, vic), (other, vics) = found
    assert one.keys() == other.keys()
    assert len(one) > 60
    assert [path for path in one if one[path] != other[path]] == []
    own = f"/console{R}/cases/open-one"
    assert "kept back from you" in one[own][2]
    assert vic[own] != vics[own]  # the worlds do differ, for who judges nothing
