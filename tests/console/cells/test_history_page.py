"""The past of a rollout: its map and cells as they were at any instant, change by change."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest

from api.cells.value_table import (
    FUTURE_TIME_TEXT,
    TIME_FORMAT_TEXT,
    format_link_time,
    parse_requested_time,
)
from rollout.engine.decide.commands import Actor, NarrowCells, StopCells
from rollout.features.access.users import load_local_caller
from rollout.features.ledger.activity import find_adjacent_changes, load_activity
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.api import bears
from tests.console.cells.test_rollout_page import BEARS, HOSTILE, plain, region
from tests.factories import DAY, HOUR, NOON


@pytest.fixture
def past(service, database, clock):
    """Widen creek at noon, stop it two hours later, look three days later."""
    bears.widened(database, NOON)
    stop = StopCells(at=NOON + 2 * HOUR, by=Actor("bo"), cells=(bears.CREEK,), reason="a try")
    execute_command(database, "bears", lambda _: stop)
    clock.advance(3 * DAY)


def at(when):
    return f"{BEARS}?at={when.replace(tzinfo=None).isoformat()}Z"


def test_the_map_and_the_cells_are_shown_as_they_were(past, browser):
    now, then = (browser.as_("vic").page(path) for path in (BEARS, at(NOON + HOUR)))
    assert "creek: stopped by day, shadow by night." in now
    assert "creek: supervised by day, shadow by night." in then
    assert "then 13:00" in then
    assert "Stopped" not in region(then, "cells-h")
    assert "Allowed then" in region(then, "cells-h")


def test_a_page_of_the_past_says_so_and_what_is_now(past, browser):
    page = plain(browser.as_("vic").page(at(NOON + HOUR)))
    assert "As of Tue 1 Jun 13:00 UTC" in page
    assert "Then: Humans confirm v1 at creek by day." in page
    assert "Now: Stopped at creek by day: humans decide there. Humans decide everything." in page


def test_a_page_of_the_past_stays_as_it_is_and_offers_no_act(past, browser):
    page = browser.as_("ana").page(at(NOON + HOUR))
    assert "data-revision" not in page
    assert "btn-primary" not in page
    assert "/narrow" not in page


def test_links_lead_from_change_to_change_and_back_to_now(past, browser):
    page = browser.as_("vic").page(BEARS)
    seen = []
    for _ in range(10):
        found = re.search(
            r'href="/console(/rollouts/bears\?at=[^"#]+)#map-h">Previous change', page
        )
        if found is None:
            break
        page = browser.page(unescape(found[1]))
        seen.append(re.search(r"As of <time[^>]*>([^<]*)</time>", page)[1])
    assert seen == ["Tue 1 Jun 14:00 UTC", "Tue 1 Jun 12:00 UTC"]
    after = re.search(r'href="/console(/rollouts/bears\?at=[^"#]+)#map-h">Next change', page)[1]
    assert "creek: stopped by day" in browser.page(unescape(after))
    assert ">Now</a>" in browser.page(unescape(after))


def test_before_the_first_policy_people_decided_everything(past, browser):
    page = browser.as_("vic").page(at(NOON - DAY))
    assert "there was no policy yet: humans decided everything" in plain(page)
    assert "Next change" in page


def test_what_happened_later_is_not_told_of_then(past, browser):
    now, then = (region(browser.as_("vic").page(p), "hist") for p in (BEARS, at(NOON + HOUR)))
    assert "bo stopped creek · day: a try" in plain(now)
    assert "stops" not in plain(then)
    assert "v1 widened to supervised" in plain(then)


def test_each_change_leads_to_the_map_of_then(past, browser):
    page = region(browser.as_("vic").page(BEARS), "hist")
    line = next(li for li in page.split("<li")[1:] if "widened to supervised" in li)
    assert line.startswith(' class="is-wider"')
    href = unescape(re.search(r'href="/console([^"#]+)#map-h"', line)[1])
    assert "creek: supervised by day" in browser.page(href)
    links = re.findall(r"Show the map then<span class=\"hidden-words\">([^<]*)<", page)
    assert len(links) == len(set(links))


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("yesterday", TIME_FORMAT_TEXT),
        ("2027-13-01T00:00", TIME_FORMAT_TEXT),
        ("0001-01-01T00:00+23:59", TIME_FORMAT_TEXT),
        ("2030-01-01T00:00", FUTURE_TIME_TEXT),
        (HOSTILE, TIME_FORMAT_TEXT),
    ],
)
def test_what_is_no_instant_of_the_past_comes_back_with_what_was_typed(browser, said, wrong):
    answer = browser.as_("vic").get(f"/console{BEARS}", params={"at": said[:100]})
    assert answer.status_code == 422
    assert wrong in answer.text
    assert "<title>Error: bears" in answer.text
    assert 'id="at-error"' in answer.text
    assert "<script>alert" not in answer.text
    assert "What is allowed, where and when" in answer.text


def test_a_typed_time_is_of_the_rollouts_clock():
    noon = datetime(2027, 6, 17, 12, tzinfo=UTC)
    found = parse_requested_time("2027-06-17T04:59", "America/Vancouver", noon)
    assert (found.at.astimezone(UTC), found.error) == (noon - timedelta(minutes=1), "")
    assert (
        parse_requested_time("2027-06-17T05:01", "America/Vancouver", noon).error
        == FUTURE_TIME_TEXT
    )


def test_a_link_names_its_instant_to_the_microsecond():
    when = NOON + timedelta(microseconds=7)
    assert parse_requested_time(format_link_time(when), "Asia/Tokyo", NOON + DAY).at == when


@pytest.mark.slow
def test_the_history_goes_on_a_page_at_a_time(browser, database, service):
    ana = load_local_caller(database, "ana")
    for hour in range(9):
        bears.widened(database, NOON + hour * DAY, bears.CREEK)
        down = NarrowCells(
            at=NOON + hour * DAY + HOUR, by=Actor("bo"), cells=(bears.CREEK,), to="shadow"
        )
        execute_command(database, "bears", lambda _, down=down: down)
    first = load_activity(service, ana, "bears", limit=10)
    second = load_activity(service, ana, "bears", limit=10, before=first.before)
    revisions = [one.revision for one in (*first.items, *second.items)]
    assert revisions == sorted(revisions, reverse=True)
    assert len(set(revisions)) == 20
    page = browser.as_("ana").page(BEARS)
    more = unescape(re.search(r'href="/console([^"#]+)#hist">Earlier', page)[1])
    assert region(browser.page(more), "hist") != region(page, "hist")


def test_who_reads_one_site_is_told_of_that_one_alone(browser, database, service, clock):
    clock.advance(DAY)
    bears.widened(database, NOON, bears.LAKE)
    bears.widened(database, NOON + HOUR, bears.CREEK)
    cleo = load_local_caller(database, "cleo")
    told = load_activity(service, cleo, "bears", limit=100).items
    assert {one.site for one in told} == {"creek", None}
    assert find_adjacent_changes(service, cleo, "bears", NOON + HOUR).before == NOON
    assert "lake" not in plain(
        browser.as_("cleo").page(f"{BEARS}?at={format_link_time(NOON + HOUR)}")
    )


def test_a_site_that_the_policy_has_no_more_keeps_its_history(browser, database):
    bears.widened(database, NOON, bears.LAKE)
    fewer = bears.POLICY.replace("[creek, {id: lake, lease: 12h}]", "[creek]")
    apply_policy(database, fewer, Actor("zoe"), NOON + HOUR)
    page = browser.as_("vic").page(BEARS)
    assert "lake · day: v1 widened to supervised" in plain(region(page, "hist")).replace(" :", ":")
    assert "lake" not in region(page, "cells-h")


def test_under_another_policy_evidence_of_then_is_not_made_up(browser, database, clock):
    bears.widened(database, NOON)
    apply_policy(database, bears.STRICTER, Actor("zoe"), NOON + HOUR)
    clock.advance(DAY)
    page = browser.as_("vic").page(at(NOON + HOUR / 2))
    assert "Another policy was in force then; its evidence is no longer computed" in page
    assert "creek: supervised by day" in page


def test_reasons_that_look_like_markup_are_text_in_the_history(browser, database):
    bears.widened(database, NOON)
    stop = StopCells(at=NOON, by=Actor("bo"), cells=(bears.CREEK,), reason=HOSTILE)
    execute_command(database, "bears", lambda _: stop)
    page = browser.as_("vic").page(BEARS)
    assert "<script>alert" not in page
    assert HOSTILE in unescape(region(page, "hist"))
