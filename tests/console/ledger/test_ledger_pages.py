"""The ledger as pages: rows in words, looked through, verified, exported."""

import json
import re
from dataclasses import replace

import pytest

from api.ledger.pages import find_typed_reason
from rollout.engine.decide.commands import Actor, AddVersion, RetireVersion
from rollout.engine.events import (
    Approved,
    CasesErased,
    FactsConfirmed,
    ProposalRejected,
    Stopped,
    VersionFirstUsed,
    VersionRetired,
)
from rollout.engine.words.event_text import CitedProposals, EventDescriber, describe_event
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, POLICY, approved, scope_of, widened
from tests.data.ledger.test_ledger import tamper
from tests.factories import DAY, HOUR, NOON
from tests.features.cells.test_overview import append_counts
from tests.page_text import collapse_space

ON_BOTH_ENGINES = True
SCRIPT = '"><script>alert(1)</script>'
PATH = "/rollouts/bears/ledger"
ATTEMPTS = 4  # the entry of the attempts that began


@pytest.fixture
def lived(service, clock):
    """Let things happen: creek is widened, a version is retired with an evil reason."""
    database = service.database
    widened(database, NOON, CREEK)
    execute_command(database, "bears", lambda _: AddVersion(at=NOON + HOUR, version=SCRIPT))
    retire = RetireVersion(at=NOON + HOUR, by=Actor("ana"), version=SCRIPT, reason=SCRIPT)
    execute_command(database, "bears", lambda _: retire)
    clock.advance(DAY)


def rows(text):
    """Return the revisions that a page shows, as they stand."""
    return [int(found) for found in re.findall(r'<tr role="row" id="r(\d+)"', text)]


def test_the_newest_row_comes_first_in_words_with_its_hash(browser, service, lived):
    text = browser.as_("vic").page(PATH)
    shown = rows(text)
    assert shown == sorted(shown, reverse=True)
    assert shown[0] == scope_of(service.database).revision
    assert "widened to supervised" in text
    assert "approved by dan and eve" in text
    assert "creek · day · v1" in text
    assert re.search(r"<code class=\"nowrap\">[0-9a-f]{4} [0-9a-f]{4} [0-9a-f]{4}", text)


def test_rows_have_reasons_days_and_a_choice_of_actors(browser, lived):
    text = browser.as_("vic").page(PATH)
    assert text.count("<h3>") == 1
    assert '<h3>Tuesday, 1 June <span class="soft">(' in text
    options = re.findall(r'<option value="([^"]*)"></option>', text)
    assert options == ["ana", "dan", "eve", "the engine", "zoe"]
    assert "is retired; all its grants ended: “&#34;&gt;&lt;script" in text
    assert "“”" not in text
    assert "No matching entries" in browser.page(f"{PATH}?who=nobody")


def test_only_a_reason_that_somebody_typed_and_the_text_lacks_is_added():
    retired = VersionRetired(at=NOON, by="ana", version="v2", reason="smoke")
    cited = {"at": NOON, "by": "ana", "proposal": "P-1", "reason": "smoke"}
    approved = Approved(**cited, groups=(), evidence_hash="")
    rejected = ProposalRejected(**cited, quiet_until=NOON)
    confirmed = FactsConfirmed(**cited, groups=(), evidence_hash="", incidents=("I-1",))
    stop = Stopped(at=NOON, by="ana", stop="S-1", cells=(CREEK,), reason="smoke")
    erased = CasesErased(at=NOON, by="ana", keys=("c1",), tables=(), counts=(), reason="smoke")
    describer = EventDescriber(parse_policy(POLICY), CitedProposals())
    for event in (retired, approved, rejected, confirmed, stop, erased):
        has_reason = "smoke" in describe_event(1, event, describer).text
        assert find_typed_reason(event) == ("" if has_reason else "smoke"), event
    assert find_typed_reason(replace(retired, by="policy")) == ""
    assert find_typed_reason(VersionFirstUsed(at=NOON, by="ana", version="v2")) == ""


def test_days_begin_at_midnight_of_the_rollout(browser, lived):
    days = browser.as_("vic").page(f"{PATH}?who=zoe"), browser.page("/ledger/access", 403)
    assert "<h3>" in days[0]
    assert "<h3>" not in days[1]


def test_what_machines_and_people_wrote_is_text(browser, lived):
    text = browser.as_("vic").page(PATH)
    assert SCRIPT not in text
    assert "&lt;script&gt;" in text
    odd = "/rollouts/bears/ledger?who=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&site=%3Cb%3E"
    assert SCRIPT not in browser.page(odd)


@pytest.mark.parametrize(
    ("query", "kept", "gone"),
    [
        ("kind=wider", "widened to supervised", "is retired"),
        ("kind=versions", "is retired", "widened to"),
        ("who=dan", "approved by dan", "approved by eve"),
        ("who=The+engine", "widened to supervised", "applied by zoe"),
        ("site=creek", "widened to supervised", "is retired"),
        ("since=2027-06-01T12:30", "is retired", "widened to"),
        ("until=2027-06-01T12:30", "widened to", "is retired"),
    ],
)
def test_rows_are_looked_through_by_kind_person_site_and_span(browser, lived, query, kept, gone):
    text = browser.as_("vic").page(f"{PATH}?{query}").split("<tbody")[1]
    assert kept in text
    assert gone not in text


def test_rows_about_a_site_hold_the_approvals_that_name_its_proposal_alone(browser, lived):
    text = browser.as_("vic").page(f"{PATH}?site=creek&kind=proposals")
    assert "approved by dan" in text
    text = browser.page(f"{PATH}?site=lake&kind=proposals")
    assert "No matching entries" in text


def test_what_ticks_counted_is_left_out_unless_it_is_chosen(browser, service, lived):
    append_counts(service.database, NOON + DAY, 2)
    revision = scope_of(service.database).revision
    assert not {revision, revision - 1} & set(rows(browser.as_("vic").page(PATH)))
    assert rows(browser.page(f"{PATH}?kind=counting")) == [revision, revision - 1, ATTEMPTS]
    assert rows(browser.page(f"{PATH}?kind=all"))[:2] == [revision, revision - 1]


def test_a_time_that_is_none_is_said_and_everything_typed_is_kept(browser, lived):
    text = browser.as_("vic").page(f"{PATH}?since=tomorrow&who=dan", 422)
    assert "Write a time such as 2027-06-17T15:30" in text
    assert 'value="tomorrow"' in text
    assert 'value="dan"' in text
    assert "No matching entries" in browser.page(f"{PATH}?until=0001-01-01T00:00%2B14:00")


def test_older_rows_come_by_pages_and_none_twice(browser, lived, monkeypatch):
    monkeypatch.setattr("api.ledger.pages.PAGE_SIZE", 3)
    text, found = browser.as_("vic").page(PATH), []
    while "Older entries</a>" in text:
        found += rows(text)
        href = re.search(r'href="/console([^"]*)">Older entries', text)[1].replace("&amp;", "&")
        text = browser.page(href)
    found += rows(text)
    assert found == [n for n in range(max(found), 0, -1) if n != ATTEMPTS]


def test_a_search_in_a_site_goes_on_where_it_ended(browser, lived, monkeypatch):
    monkeypatch.setattr("api.ledger.pages.PAGE_SIZE", 1)
    text, found = browser.as_("vic").page(f"{PATH}?site=creek"), []
    while "Older entries</a>" in text:
        found += rows(text)
        href = re.search(r'href="/console([^"]*)">Older entries', text)[1].replace("&amp;", "&")
        text = browser.page(href)
    monkeypatch.setattr("api.ledger.pages.PAGE_SIZE", 50)
    assert found + rows(text) == rows(browser.page(f"{PATH}?site=creek"))


def test_verifying_says_whole_with_the_head(browser, lived):
    text = browser.as_("vic").submit(PATH, 200).text
    assert "Intact</span>" in text
    assert "entries 1 to" in text


def test_verifying_says_where_the_chain_breaks(browser, service, lived):
    tamper(service.database, "UPDATE ledger SET actor = 'eve' WHERE revision = 3")
    text = collapse_space(browser.as_("vic").submit(PATH, 200).text)
    assert "Broken</span>" in text
    assert "Line 3" in text
    assert "2 entries before it are intact" in text


def test_a_row_seen_earlier_is_compared(browser, lived):
    lines = browser.as_("vic").get("/v1/rollouts/bears/ledger").text.splitlines()
    seen = json.loads(lines[1])["hash"]
    fields = {"seen-revision": "2", "seen-hash": f"{seen[:8].upper()} {seen[8:]}"}
    assert "Match</span>" in browser.submit(PATH, 200, **fields).text
    wrong = {"seen-revision": "2", "seen-hash": "00"}
    assert "No match</span>" in browser.submit(PATH, 200, **wrong).text
    half = browser.submit(PATH, 422, **{"seen-revision": "", "seen-hash": "ab"}).text
    assert "or neither" in half
    assert 'value="ab"' in half


def test_the_export_is_what_the_api_gives(browser, lived):
    browser.as_("vic")
    lines = browser.get(f"/console{PATH}/entries")
    assert lines.headers["content-disposition"] == 'attachment; filename="bears-ledger.jsonl"'
    assert lines.content == browser.get("/v1/rollouts/bears/ledger").content


def test_who_may_not_read_every_site_is_told_why(browser, lived):
    text = browser.as_("cleo").page("/ledger")
    assert "read lake" in text.split("</h1>")[1]
    assert f'href="/console{PATH}"' not in text.split("<main")[1]
    assert "lake" in browser.page(PATH, 403)


def test_who_reads_one_rollout_alone_is_led_to_its_ledger(browser, lived):
    answer = browser.as_("vic").get("/console/ledger", follow_redirects=False)
    assert answer.headers["location"] == f"/console{PATH}"


def test_the_house_chain_is_for_admins(browser, lived):
    text = browser.as_("ada").page("/ledger")
    assert "Access ledger" in text
    text = browser.page("/ledger/access")
    assert "rita is reviewer in all rollouts" in text
    assert "has a new password" in text
    assert "Intact</span>" in browser.submit("/ledger/access", 200).text
    assert "is added" not in browser.page("/ledger/access?kind=roles").split("<tbody")[1]
    lines = browser.get("/console/ledger/access/entries").text.splitlines()
    assert f'"revision":{len(lines)}' in lines[-1]
    browser.as_("ana").page("/ledger/access", 403)
    browser.page("/ledger/access/entries", 403)


def test_rows_about_a_site_that_is_gone_are_told_still(browser, service, lived):
    gone = POLICY.replace("sites: [creek, {id: lake, lease: 12h}]", "sites: [lake]")
    apply_policy(service.database, gone, Actor("zoe"), NOON + DAY)
    approved(service.database, NOON + DAY)
    text = browser.as_("vic").page(PATH)
    assert "policy 2 applied by zoe" in text
    assert "creek · day · v1" in text
