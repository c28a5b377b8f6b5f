"""Reports in the console: listed, made, read exactly as they were sealed, sent where."""

import re
from base64 import b64encode
from datetime import timedelta
from hashlib import sha256

import pytest

from api.web_kit.page import build_content_policy
from rollout.data.records.incoming_cases import ExposureStore
from rollout.data.reports.reports import FAILED, DeliveryStore, NewDelivery, Outbox
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access.users import load_local_caller
from rollout.features.reports.archive import load_report_deliveries, request_report
from rollout.features.reports.builder import ReportOptions
from rollout.features.reports.figures.report_version import compute_seal
from rollout.kernel.errors import NotAllowedError
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.api.bears import POLICY
from tests.console.told_cases import AT, CLOSED, NASTY, newcomer, some
from tests.data.snapshots import filled_once
from tests.factories import NOON

pytestmark = pytest.mark.slow

MADE = {"rollout": "bears", "name": "week", "since": "", "until": "", "view": "operator"}
DAY_ONE = CLOSED.replace(day=2, hour=0)


@pytest.fixture
def told(service, clock):
    """Return a service whose cases have closed and were counted."""
    counted(service.database)
    clock.advance(CLOSED - NOON)
    return service


@filled_once
def counted(database):
    some(database)
    Ticker(database, "bears", "one").tick(CLOSED)


def made(service, name="week", rollout="bears", until=DAY_ONE):
    ana = load_local_caller(service.database, "ana")
    return request_report(service.database, ana, rollout, name, ReportOptions(until=until), CLOSED)


@pytest.mark.slow
def test_a_report_is_made_on_demand_and_its_page_says_what_it_is(browser, told):
    sent = MADE | {"until": "2027-06-01"}
    answer = browser.as_("vic").submit("/reports", on="/reports", **sent)
    assert re.fullmatch(r"/console/rollouts/bears/reports/\d+/about", answer.headers["location"])
    page = browser.get(answer.headers["location"]).text
    listed = browser.get("/v1/rollouts/bears/reports").json()["items"]
    assert [one["name"] for one in listed] == ["week"]
    for said in ("FINAL", "Report week of bears, version 1", listed[0]["hash"], "No deliveries."):
        assert said in page
    again = browser.submit("/reports", on="/reports", **sent)
    assert again.headers["location"] == answer.headers["location"]


@pytest.mark.slow
def test_the_list_is_of_all_rollouts_newest_first_with_state_version_span_and_hash(browser, told):
    other = POLICY.replace("rollout: bears", "rollout: wolves")
    apply_policy(told.database, other, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32))
    first = made(told)
    made(told, "late", until=CLOSED)
    made(told, "pack", rollout="wolves")
    page = browser.as_("vic").page("/reports")
    assert re.findall(r'/about">(\w+)<span', page) == ["pack", "late", "week"]
    assert re.findall(r"</svg>([A-Z]+)</span>", page) == ["PROVISIONAL", "PROVISIONAL", "FINAL"]
    assert "wolves, version 1" in page
    short = " ".join(re.findall("....", first.report.hash)[:4])
    assert f"<code>{short} …</code>" in page
    assert "not before" in page


@pytest.mark.slow
def test_the_sealed_page_has_the_bytes_of_the_api_and_a_policy_with_its_own_hash(browser, told):
    number = made(told).number
    browser.as_("vic")
    for view in ("", "?view=operator", "?view=engineer", "?view=auditor"):
        ours = browser.get(f"/console/rollouts/bears/reports/{number}{view}")
        theirs = browser.get(f"/v1/rollouts/bears/reports/{number}{view}")
        assert ours.content == theirs.content
        assert ours.headers["content-type"] == theirs.headers["content-type"]
        said = ours.headers["content-security-policy"]
        style = re.search("<style>(.*?)</style>", ours.text, re.DOTALL)[1]
        assert f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'" in said
        assert "unsafe-inline" not in said
        for part in ("default-src 'none'", "frame-ancestors 'none'", "sandbox"):
            assert part in said
        assert "script-src" not in said


@pytest.mark.slow
def test_files_are_those_of_the_api(browser, told):
    number = made(told).number
    browser.as_("vic")
    for form, ending in (("json", "json"), ("csv", "csv")):
        ours = browser.get(f"/console/rollouts/bears/reports/{number}/file?form={form}")
        theirs = browser.get(f"/v1/rollouts/bears/reports/{number}?format={form}")
        assert ours.content == theirs.content
        assert (
            f'attachment; filename="report-{number}.{ending}"'
            in ours.headers["content-disposition"]
        )
    sealed = browser.get(f"/console/rollouts/bears/reports/{number}/file").content
    assert compute_seal(sealed.decode()) == made(told).report.hash


@pytest.mark.parametrize(
    ("changed", "field", "says"),
    [
        ({"since": "2028-01-01"}, "since", "is not before"),
        ({"since": "x"}, "since", "Write a day as"),
        ({"since": "2027-06-02", "until": "2027-06-01"}, "since", "not after the last day"),
        ({"until": "2026-01-01"}, "since", "let the span end after it"),
        ({"name": "a\tb"}, "name", "printable letters"),
        ({"view": "boss"}, "since", "Refused: no view boss"),
        ({"rollout": "none"}, "rollout", "Refused: no rollout none"),
    ],
)
def test_a_report_that_can_not_be_made_comes_back_with_why_and_what_was_typed(
    browser, told, changed, field, says
):
    sent = MADE | {"name": "mine"} | changed
    answer = browser.as_("vic").submit("/reports", 422, on="/reports", **sent)
    assert "<title>Error: Reports" in answer.text
    assert says in answer.text
    assert f'id="{field}-error"' in answer.text
    assert "<details" in answer.text
    assert " open>" in answer.text
    if "name" not in changed:
        assert 'value="mine"' in answer.text
    assert browser.get("/v1/rollouts/bears/reports").json()["items"] == []


def test_today_as_the_last_day_ends_now(browser, told):
    sent = MADE | {"until": "2027-06-04"}
    browser.as_("vic").submit("/reports", on="/reports", **sent)
    (one,) = browser.get("/v1/rollouts/bears/reports").json()["items"]
    assert one["until"] == "2027-06-04T12:00:00Z"


def test_who_reads_some_sites_is_told_why_and_what_to_do(browser, told):
    number = made(told).number
    page = browser.as_("cleo").page("/reports")
    assert "You can read only some sites of bears. Reports cover all sites" in page
    assert "an admin can grant a role" in page
    assert "Create a report" not in page
    assert "week" not in page
    for path in ("", "/about", "/file"):
        browser.page(f"/rollouts/bears/reports/{number}{path}", 403)
    cleo = load_local_caller(told.database, "cleo")
    with pytest.raises(NotAllowedError):
        load_report_deliveries(told.database, cleo, "bears", number)
    answer = browser.submit("/reports", 422, on="/", **MADE)
    assert "A report is of all sites of a rollout, and you read some of them" in answer.text


def test_nobody_without_a_right_to_read_sees_a_report(browser, told):
    number = made(told).number
    page = browser.as_("rita").page("/reports")
    assert "You have no permission to read a rollout" in page
    assert "week" not in page
    for path in ("", "/about", "/file"):
        browser.page(f"/rollouts/bears/reports/{number}{path}", 403)


@pytest.mark.parametrize("number", ["99", "0", "-1", "99999999999999999999"])
def test_a_report_that_is_not_there_is_a_clear_page(browser, told, number):
    for path in ("", "/about", "/file"):
        page = browser.as_("vic").page(f"/rollouts/bears/reports/{number}{path}", 404)
        assert "Bears has no report" in page or "bears has no report" in page


def test_where_a_report_went_stands_beside_it(browser, told):
    number = made(told).number
    with told.database.begin_write() as transaction:
        queue = DeliveryStore(transaction, load_rollout_state(transaction, "bears").rollout)
        for channel in ("rangers", "desk", NASTY):
            queue.add(NewDelivery(number, channel, "schedule", "week"), at=AT)
        box = Outbox(transaction)
        taken = [box.take_next(at=AT, lease=timedelta(minutes=5)) for _ in range(2)]
        box.record_sent(taken[0], at=AT)
        box.close(taken[1], FAILED, error="the channel refused it <b>")
    page = browser.as_("vic").page(f"/rollouts/bears/reports/{number}/about")
    sent = page.split('id="sent"')[1]
    for said in (
        "rangers",
        "Sent",
        "desk",
        "Given up",
        "The channel refused it &lt;b&gt;.",
        "Waiting",
    ):
        assert said in sent
    assert "<script>" not in page


@pytest.mark.slow
def test_many_reports_come_in_pages(browser, told, monkeypatch):
    monkeypatch.setattr("api.reports.pages.PAGE_SIZE", 3)
    for n in range(5):
        made(told, f"r{n:02}")
    names = r'/about">(r\d\d)<span'
    page = browser.as_("vic").page("/reports")
    assert re.findall(names, page) == ["r04", "r03", "r02"]
    further = re.search(r'href="/console(/reports\?after=[^"]+)"', page)[1]
    assert re.findall(names, browser.page(further)) == ["r01", "r00"]
    browser.page("/reports?after=%25", 422)


def test_before_the_first_report_it_says_what_to_do(browser):
    page = browser.as_("vic").page("/reports")
    assert "No reports yet. Create one above" in page
    assert '<details class="section" open>' in page


def test_an_hour_has_room_for_so_many_reports(browser, told, monkeypatch):
    monkeypatch.setattr("rollout.features.reports.archive.MAX_REPORTS_PER_HOUR", 1)
    browser.as_("vic").submit("/reports", on="/reports", **MADE)
    answer = browser.submit("/reports", 422, on="/reports", **MADE | {"name": "more"})
    assert "Refused: you requested 1 reports within an hour" in answer.text
    assert "ask again from" in answer.text
    assert "field-error" not in answer.text  # no field is wrong


def test_reading_is_noted_and_looking_at_the_list_is_not(browser, told):
    newcomer(told, "mia", AssignedRole("viewer"), AssignedRole("reviewer"))
    number = made(told).number
    browser.as_("mia").page("/reports")
    browser.page(f"/rollouts/bears/reports/{number}/about")
    assert told_up_to(told, "mia") is None
    browser.page(f"/rollouts/bears/reports/{number}")
    assert told_up_to(told, "mia") == DAY_ONE


def told_up_to(service, name):
    with service.database.begin_read() as transaction:
        return ExposureStore(
            transaction, load_rollout_state(transaction, "bears").rollout
        ).load_figures_until(name)


def test_markup_in_names_of_reports_is_text(browser, told):
    made(told, NASTY)
    page = browser.as_("vic").page("/reports")
    about = browser.page(re.search(r'href="/console(/rollouts/bears/reports/\d+/about)"', page)[1])
    for text in (page, about):
        assert "&lt;script&gt;alert" in text
        assert "<script>" not in text


def test_a_policy_names_the_first_sheet_and_each_attribute_and_nothing_else():
    page = '<style>a{}</style><p style="color: red">x</p><style>b{}</style><p style="color: red">'
    said = build_content_policy(page)
    hashes = re.findall("'sha256-([^']+)'", said)
    wanted = [b64encode(sha256(t).digest()).decode() for t in (b"a{}", b"color: red")]
    assert hashes == wanted
    assert build_content_policy("<p>plain").startswith("default-src 'none'")
