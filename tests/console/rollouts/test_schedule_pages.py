"""The schedule as page, over HTTP, and in a calendar program."""

import re
from dataclasses import replace

import pytest
from icalendar import Calendar
from sqlalchemy import text

from api.app import create_app
from rollout.core.scope.commands import Actor
from rollout.core.scope.permissions import AssignedRole
from rollout.services.access import users
from rollout.services.access.users import AccountUpdate
from rollout.services.backups.eras import end_sign_ins
from rollout.services.engine.policy_application import apply_policy
from rollout.services.support.channels import Channels
from rollout.store.database.rollouts import Rollouts
from tests.api.bears import LAKE, POLICY, tick, widened
from tests.console.conftest import Browsing
from tests.factories import DAY, NOON, TICK
from tests.store.databases import on_sqlite

SETTINGS = "/settings/calendar"


@pytest.fixture
def granted(service):
    """Return the service with a grant at creek and an open proposal at lake."""
    widened(service.database, NOON)
    tick(service.database, NOON + 2 * TICK, cells=(LAKE,))
    return service


def make_address(browser, name="vic"):
    page = browser.as_(name).submit(SETTINGS, 200, do="create").text
    return re.search(r"(/calendars/[A-Za-z0-9_-]{43}\.ics)", page)[1]


@on_sqlite
@pytest.mark.parametrize("public_url", ["https://rollout.example/", ""])
def test_an_address_begins_with_the_public_url_and_never_with_the_host_header(service, public_url):
    configured = replace(service, channels=Channels({}, public_url))
    with Browsing(create_app(configured), base_url="http://localhost:8000") as browser:
        browser.headers["Sec-Fetch-Site"] = "same-origin"
        page = browser.as_("vic").submit(SETTINGS, 200, do="create").text
    (address,) = re.findall(r"[^\s<>]*/calendars/[^\s<>]*", page)
    assert address.startswith(f"{public_url.rstrip('/')}/calendars/"), address


def read_events(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/calendar; charset=utf-8"
    return {str(e["uid"]): e for e in Calendar.from_ical(answer.content).walk("VEVENT")}


def test_the_page_lists_what_will_happen_by_day(browser, granted):
    page = browser.as_("vic").page("/rollouts/bears/schedule")
    assert "The grant of supervised to v1 ends at creek · day, unless renewed" in page
    assert "Proposal P-2 (widening) expires at lake · day" in page
    assert "First stop drill is due at creek" in page


def test_a_visitor_of_one_site_sees_that_site_alone(browser, granted):
    page = browser.as_("cleo").page("/rollouts/bears/schedule")
    assert "at creek" in page
    assert "at lake" not in page


def test_a_calendar_program_reads_stable_entries_in_utc(browser, granted, clock):
    address = make_address(browser)
    events = read_events(browser, address)
    grant = next(e for e in events.values() if "The grant of" in str(e["summary"]))
    assert str(grant["summary"]).startswith("bears: The grant of supervised")
    assert grant["dtstart"].to_ical().endswith(b"Z")
    assert "bears: First stop drill is due at creek" in {str(e["summary"]) for e in events.values()}
    assert not any(name in str(events) for name in ("ana", "bo,", "vic"))
    clock.advance(DAY)
    assert read_events(browser, address).keys() == events.keys()


def test_a_calendar_program_gets_no_typed_reason_of_a_freeze(browser, service):
    frozen = POLICY + 'freezes: [{hours: "Jun 05", reason: alarm of ana}]\n'
    apply_policy(service.database, frozen, Actor("zoe"), NOON)
    page = browser.as_("vic").page("/rollouts/bears/schedule")
    assert "Freeze (alarm of ana): nothing widens" in page
    summaries = {str(e["summary"]) for e in read_events(browser, make_address(browser)).values()}
    assert "bears: Freeze: nothing widens at creek, lake" in summaries


def test_a_rollout_that_cannot_be_read_is_named_and_the_others_are_complete(
    browser, granted, clock
):
    address = make_address(browser)
    before = read_events(browser, address)
    apply_policy(granted.database, POLICY.replace("bears", "crows"), Actor("zoe"), NOON)
    with granted.database.begin_write() as transaction:
        crows = Rollouts(transaction).find("crows").number
        transaction.execute(text("DROP TRIGGER ledger_refuses_update"))
        statement = "UPDATE ledger SET body = '{' WHERE rollout = :rollout"
        transaction.execute(text(statement), {"rollout": crows})
    after = read_events(browser, address)
    (added,) = after.keys() - before.keys()
    assert before.keys() < after.keys()
    assert str(after[added]["summary"]).startswith("crows: The schedule can't be read;")
    clock.advance(DAY)
    assert added in read_events(browser, address)
    assert browser.as_("vic").get("/v1/me/calendar").json()["unreadable"] == ["crows"]
    assert "The calendar lacks the schedule of crows" in browser.page(SETTINGS)
    assert browser.as_("cleo").get("/v1/me/calendar").json()["unreadable"] == [], "not hers"


def test_a_calendar_program_asks_whether_the_file_is_there(browser, granted):
    address = make_address(browser)
    whole, head = browser.get(address), browser.head(address)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(whole.content))
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert browser.head("/calendars/of-nobody.ics").status_code == 404


def test_an_address_shows_what_its_user_may_read_now(browser, granted):
    address = make_address(browser, "cleo")
    summaries = [str(e["summary"]) for e in read_events(browser, address).values()]
    assert summaries
    assert not any("lake" in summary for summary in summaries)
    ada = users.load_local_caller(granted.database, "ada")
    roles = (AssignedRole("operator", "bears", "creek"),)
    users.update_account(
        granted.database, ada, "cleo", AccountUpdate(roles_to_revoke=roles), at=NOON
    )
    assert read_events(browser, address) == {}


def test_an_address_ends_when_it_is_revoked_replaced_restored_or_its_user_disabled(
    browser, granted
):
    first = make_address(browser)
    second = make_address(browser)
    ask = browser.get
    assert (ask(first).status_code, ask(second).status_code) == (404, 200)
    assert ask(first).json()["code"] == "unknown-calendar"
    browser.as_("vic").submit(SETTINGS, do="revoke")
    assert browser.get("/v1/me/calendar").json() == {"created_at": None, "unreadable": []}
    assert ask(second).status_code == 404
    third = make_address(browser)
    end_sign_ins(granted.database, NOON)
    assert ask(third).status_code == 404
    fourth = make_address(browser)
    ada = users.load_local_caller(granted.database, "ada")
    users.update_account(granted.database, ada, "vic", AccountUpdate(is_disabled=True), at=NOON)
    assert ask(fourth).status_code == 404
