"""The list of proposals: several approved at once, closed ones, those raised by hand."""

from rollout.features.access.users import load_local_caller
from rollout.features.proposals import proposals
from tests.api.bears import CREEK, approved, widened
from tests.console.proposals.raised_proposals import LIST, XSS, add_version, heading, rows
from tests.factories import NOON
from tests.page_text import collapse_space


def tick_boxes(raised, *names):
    return [f"{name}.{raised[name].evidence_hash}" for name in names]


def test_several_are_approved_at_once_each_by_its_own_hash(browser, service, raised):
    page = browser.as_("ana").page(LIST)
    assert heading(page) == "2 open proposals"
    for value in tick_boxes(raised, "P-1", "P-2"):
        assert f'value="{value}"' in page
    moved = f"P-2.{'0' * 64}"
    fields = {"approve": [*tick_boxes(raised, "P-1"), moved], "reason": "both seen"}
    answer = browser.submit("/rollouts/bears/approvals", on=LIST, **fields)
    told = browser.page(answer.headers["location"].removeprefix("/console"))
    assert heading(told) == "1 approved, 1 with changed evidence"
    assert "Needs 1 more approval." in told
    assert [row.fields["reason"] for row in rows(service, "Approved")] == ["both seen"]


def test_the_answer_is_read_from_the_ledger_not_from_the_address(browser, raised):
    made_up = "&".join(f"p={value}" for value in tick_boxes(raised, "P-1", "P-2"))
    page = browser.as_("ana").page(f"/rollouts/bears/approvals?{made_up}&p={XSS}&p=P-77.00")
    assert heading(page) == "0 approved, 2 not approved"
    assert "alert(1)" not in page


def test_nothing_ticked_or_no_reason_comes_back_with_what_was_chosen(browser, service, raised):
    browser.as_("ana")
    page = browser.submit("/rollouts/bears/approvals", 422, on=LIST, reason="kept").text
    assert "Tick at least one proposal; nothing was approved" in page
    assert ">kept</textarea>" in page
    (value,) = tick_boxes(raised, "P-2")
    answer = browser.submit("/rollouts/bears/approvals", 422, on=LIST, approve=value)
    page = collapse_space(answer.text)
    assert f'value="{value}" checked' in page
    assert "Write a reason: it is kept with your approval" in page
    assert not rows(service, "Approved")


def test_an_operator_of_one_site_ticks_and_sees_their_own_alone(browser, raised):
    page = browser.as_("cleo").page(LIST)
    assert "P-1" in page
    assert "P-2" not in page


def test_who_may_approve_nothing_gets_the_list_without_boxes(browser, raised):
    page = browser.as_("vic").page(LIST)
    assert "checkbox" not in page
    assert "vic may not approve or reject" in page


def test_an_empty_list_says_when_something_will_stand_there(browser):
    page = browser.as_("ana").page(LIST)
    assert heading(page) == "No open proposals"
    assert "A tick raises a proposal when" in page
    assert "None yet" in page


def test_closed_ones_are_listed_by_what_became_of_them_a_page_at_a_time(browser, service, raised):
    ana = load_local_caller(service.database, "ana")
    proposals.reject_proposal(service.database, ana, "bears", "P-1", at=NOON, reason=XSS)
    approved(service.database, NOON)
    page = browser.as_("ana").page(f"{LIST}?state=rejected")
    closed = page.split('id="closed"')[1]
    assert "P-1" in closed
    assert "P-2" not in closed
    assert "&lt;script&gt;" in closed
    assert XSS not in closed
    assert "None was expired." in browser.page(f"{LIST}?state=expired")
    assert "Closed proposals" in browser.page(f"{LIST}?after=1000")
    assert browser.page(f"{LIST}?after=nine", 422)


def test_an_operator_asks_for_a_takeover_and_is_told_what_is_missing(browser, service):
    widened(service.database, NOON, CREEK)
    add_version(service, "v2")
    page = browser.as_("ana").page(LIST)
    assert "creek · day: v2 takes the place of v1 at supervised" in page
    what = "takeover/creek/day/v2/supervised"
    refused = browser.submit(f"{LIST}/raise", 403, on=LIST, what=what)
    assert "Refused: v2 may not take over creek · day yet" in refused.text
    nonsense = browser.submit(f"{LIST}/raise", 422, on=LIST, what=f"takeover/{XSS}")
    assert "Refused: choose what to propose." in nonsense.text
    assert XSS not in nonsense.text
