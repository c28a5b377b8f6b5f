"""Two worlds that differ in what the model said of one open case look the same."""

import re
from contextlib import contextmanager
from itertools import count
from unittest import mock

import pytest
from fastapi.routing import APIRoute
from starlette.routing import compile_path

from api.web_kit.page_context import TOKEN_FIELD
from rollout.engine.decide.commands import OpenIncident
from rollout.engine.decide.permissions import Caller
from rollout.features.proposals import proposals
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK
from tests.browser import town as towns
from tests.browser.town import HOUR, MINUTE, town
from tests.chance import without_chance
from tests.console.conftest import token_of
from tests.console.incidents.attacked_town import R, browsing, routes, sent, with_eve
from tests.console.test_every_page import Read
from tests.data.databases import fresh

pytestmark = pytest.mark.exhaustive

VARIES = re.compile(r'name="(page_token|once)" value="[^"]*"')
HEAD_CODE = re.compile(r'"head_code":"[^"]*"')  # of a random key for each service
NOT_TOLD = {"content-length", "set-cookie"}
ADMINS, OWN_FILES = "refused: it is an admin's", "of files that the user sent, not of the rollout"
REVIEWS = "tests/console/reviews/test_review_worlds.py compares it"
NOT_SHOWN = {
    "/assets/{name}": "the same for everybody",
    "/new": ADMINS,
    "/ledger/access": ADMINS,
    "/ledger/access/entries": ADMINS,
    "/settings/erasures": ADMINS,
    "/settings/reviewers": ADMINS,
    "/settings/users": ADMINS,
    "/settings/users/{name}": ADMINS,
    "/settings/users/{name}/keys": ADMINS,
    "/settings/users/{name}/link": ADMINS,
    "/rollouts/{rollout}/settings/planted-cases": ADMINS,
    "/files/policy": OWN_FILES,
    "/files/report": OWN_FILES,
    "/rollouts/{rollout}/review/{number}": REVIEWS,
    "/rollouts/{rollout}/adjudication/{number}": REVIEWS,
    "/rollouts/{rollout}/proposals/{proposal}/policy": "a policy's text, which holds no case",
}
"""Pages of the console that the comparison shows to nobody, with the reason."""
UNASKED = {
    "/v1/rollouts/{rollout}/events": "a stream without an end; what it sends is the ledger's",
}
"""Questions to the API that the comparison doesn't ask, with the reason."""
UNANSWERED = {
    "/v1/rollouts/bears/ledger/checkpoint": 409,  # nothing signs here
}
ASKED_ABOUT = {
    "rollout": "bears", "proposal": "P-1", "incident": "I-1", "key": "open-one", "site": "creek",
    "window": "day", "version": "v1", "report": "1", "review": "1",
}  # fmt: skip
FILES = (
    "/divergences.csv",
    "/training",
    "/training/manifest",
    "/cases/open-one",
    "/ledger/entries",
    "/review-plan",
    "/cause",
    "/cause?site=creek&window=day&version=v1",
    "/cause?is%20camera=c1",
)
ELSEWHERE = (
    "/divergences",
    "/ledger",
    "/review",
    "/revision",
    "/stop",
    "/stop/done",
    "/approvals?p=P-1.ab",
    "/narrow/confirm?target=all&to=shadow",
    "/narrow/done",
    "/proposals/P-1/policy",
    "/reports",
    "/adjudication/next",
    "/adjudication/1",
    "/review/1",
    "/settings/planted-cases",
    "/settings/erasures",
    "/settings/reviewers",
    "/settings/users",
    "/settings/users/bo",
    "/ledger/access",
    "/new",
)


def counted():
    numbers = count(1)
    return lambda size=38: next(numbers).to_bytes(8, "big").rjust(size, b"r")[::-1]


@contextmanager
def founded(folder):
    """Found a town of whose cases eve may judge each a second time.

    Revisions are read anew for each page: what a cache of them holds depends on how long the pages
    before took.
    """
    text = towns.POLICY.replace("verdicts: 1,", "verdicts: 1, second_verdict: 100%,")
    text = text.replace("grace: 1h", "grace: 3h")
    assert "second_verdict: 100%" in text
    assert "grace: 3h" in text
    with (
        mock.patch("api.limits.ANONYMOUS_BURST", 1e9),
        mock.patch("rollout.live.state_cache.MAX_REVISIONS_AGE", 0),
        mock.patch.object(towns, "chance", counted()),
        mock.patch.object(towns, "POLICY", text),
        fresh("sqlite", folder) as url,
        town(url, odd=False) as found,
        browsing(found) as opened,
    ):
        with_eve(found)
        yield found, opened


@contextmanager
def world(folder, says):
    """Give a town where rita has judged a case that eve may still judge, seen by a guard."""
    with founded(folder) as (found, opened):
        found.hours(8)
        tell_open_case(found, opened, says)
        opened_incident = OpenIncident(
            at=found.clock.now(), kind="unauthorized", reason="lens", cell=CREEK, version="v1"
        )
        execute_command(found.database, "bears", lambda _: opened_incident)
        for _ in range(2):
            found.clock.advance(HOUR)
            found.tick()
        yield opened


@contextmanager
def alarmed_world(folder, says):
    """Give a town whose own guard narrows creek while eve may still judge one of its cases."""
    creek = ("creek",)
    with founded(folder) as (found, opened):
        found.hours(14, sites=creek)
        for name in ("ana", "bo"):
            by = Caller(name, role_assignments=towns.PEOPLE[name])
            for raised in towns.scope_of(found).proposals.values():
                proposals.approve_proposal(
                    *(found.database, by, "bears", raised.id, raised.evidence_hash),
                    at=found.clock.now(),
                )
        found.hours(1, sites=creek)
        found.hours(4, sites=creek, right=0.0)
        tell_open_case(found, opened, says)
        found.hours(2, sites=creek, right=0.0)
        assert towns.scope_of(found).get_holder(CREEK) is None
        yield opened


def tell_open_case(found, opened, says):
    """Let rita judge a case of which the model says one of two things."""
    at = found.clock.now() - MINUTE
    case = {"kind": "case", "key": "open-one", "site": "creek", "occurred_at": at.isoformat()}
    sure = {"bear": 0.9, "none": 0.6}[says]
    said = {"kind": "prediction", "key": "open-one", "version": "v1", "confidence": sure}
    found.send(case, {**said, "answers": {"alarm": says}})
    found.clock.advance(MINUTE)
    opened.as_("rita")
    page = opened.page(f"{R}/review")
    form = re.search(r'action="(/console/rollouts/bears/review/\d+)"', page)[1]
    began = re.search(r'name="began" value="([^"]*)"', page)[1]
    fields = {TOKEN_FIELD: token_of(page), "began": began, "lever.alarm": "bear"}
    assert sent(opened, form, fields).status_code == 303


def everything(browser, name):
    """Return all that somebody comes to by pages, links and files: status, headers, text."""
    pages = pytest.importorskip("tests.browser.test_console_pages").PAGES
    browser.as_(name)
    waiting = [f"/console{path}" for _, path in pages.values()]
    waiting += [f"/console{R}{path}" for path in FILES]
    waiting += [f"/console/search?q={typed}" for typed in ("open-one", "creek", "P-1")]
    waiting += [f"/console{path}" for path in ELSEWHERE]
    waiting += [f"/console{R}{path}" for path in ELSEWHERE]
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
    fields = {TOKEN_FIELD: token_of(browser.page("/glossary")), "rollout": "bears", "name": "now"}
    made = sent(browser, "/console/reports", fields)
    report = made.headers["location"].removesuffix("/about")
    for path in (report, f"{report}/about"):
        answer = browser.get(path)
        seen[path] = (answer.status_code, {}, VARIES.sub("", answer.text))
    for form in ("json", "csv"):
        path = f"{report}/file?form={form}"
        answer = browser.get(path)
        seen[path] = (answer.status_code, {}, answer.text)
    for path in list_questions(browser.app):
        answer = browser.get(path)
        seen[path] = (answer.status_code, {}, HEAD_CODE.sub("", answer.text))
    return seen


def list_pages_not_shown(answers):
    """Return the pages of the console of which no answer is a page or leads to one."""
    pages = [route.path for route in routes("GET")]
    shown = set()
    for address, answer in answers.items():
        path = address.removeprefix("/console").partition("?")[0]
        if address.startswith("/console/") and answer[0] in {200, 303}:
            shown.add(next((page for page in pages if compile_path(page)[0].match(path)), path))
    return set(pages) - shown


def list_questions(app):
    """Return an address for each operation of the API that reads of rollouts."""
    paths = {route.path for route in app.routes
             if isinstance(route, APIRoute) and "GET" in route.methods}  # fmt: skip
    asked = [p for p in sorted(paths) if p.startswith("/v1/rollouts") and p not in UNASKED]
    return [re.sub(r"{(\w+)(:path)?}", lambda found: ASKED_ABOUT[found[1]], p) for p in asked]


def test_who_may_still_judge_a_case_is_told_nothing_of_the_model_by_any_page(tmp_path):
    found = []
    for says in ("bear", "none"):
        folder = tmp_path / says
        folder.mkdir()
        with without_chance(), world(folder, says) as opened:
            found.append((everything(opened, "eve"), everything(opened, "vic")))
    (one, vic), (other, vics) = found
    assert one.keys() == other.keys()
    assert len(one) > 60
    assert [path for path in one if one[path] != other[path]] == []
    assert list_pages_not_shown(one) == set(NOT_SHOWN)
    statuses = {path: answer[0] for path, answer in one.items() if path.startswith("/v1/")}
    assert {path: status for path, status in statuses.items() if status != 200} == UNANSWERED
    assert [one[f"/console{R}{path}"][0] for path in FILES[-3:]] == [200, 200, 422]
    own = f"/console{R}/cases/open-one"
    assert "hidden from you" in one[own][2]
    for path in (own, f"/v1{R}/cases/open-one"):
        assert vic[path] != vics[path]  # the worlds do differ, for who judges nothing


ALARM = (
    "/console/rollouts/bears/incidents/I-1",
    "/console/incidents",
    "/console/rollouts/bears/cells/creek/day",
    "/console/rollouts/bears/cause?site=creek&window=day&version=v1",
    "/console/rollouts/bears/cases/open-one",
    "/console/rollouts/bears/ledger",
    "/console/rollouts/bears",
    "/v1/rollouts/bears/incidents/I-1",
    "/v1/rollouts/bears/incidents/I-1/cause",
    "/v1/rollouts/bears/incidents/I-1/detector",
    "/v1/rollouts/bears/incidents",
    "/v1/rollouts/bears/cause?site=creek&window=day&version=v1",
)


def read_alarm(browser, name):
    """Return what somebody reads of the alarm, by path: status, headers, text."""
    browser.as_(name)
    answers = {path: browser.get(path, follow_redirects=False) for path in ALARM}
    return {
        path: (
            answer.status_code,
            {k: v for k, v in answer.headers.items() if k not in NOT_TOLD},
            VARIES.sub("", answer.text),
        )
        for path, answer in answers.items()
    }


def test_an_alarm_tells_who_may_still_judge_one_of_its_cases_nothing_of_the_model(tmp_path):
    found = []
    for says in ("bear", "none"):
        folder = tmp_path / says
        folder.mkdir()
        with without_chance(), alarmed_world(folder, says) as opened:
            found.append((read_alarm(opened, "eve"), read_alarm(opened, "vic")))
    (one, vic), (other, vics) = found
    assert [path for path in ALARM if one[path] != other[path]] == []
    assert all(answer[0] == 200 for answer in one.values())
    page, course, own = ALARM[0], ALARM[9], ALARM[4]
    assert "course is not shown to you" in one[page][2]
    assert "course is not shown to you" not in vic[page][2]
    assert one[course] != vic[course]
    assert one[ALARM[8]] != vic[ALARM[8]]  # whole batches, without values
    assert "hidden from you" in one[own][2]
    assert vic[own] != vics[own]  # the worlds do differ, for who judges nothing
