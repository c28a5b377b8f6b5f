"""Stop by the console: two steps, without scripts, and while everything else hangs."""

import re
import threading
import time
from datetime import datetime

import pytest

from api.priority_threads import is_narrowing
from api.web_kit.cell_view import parse_target
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.stops import StopTarget
from rollout.features.access import users
from rollout.features.access.users import AccountUpdate, load_local_caller
from rollout.features.proposals import proposals
from rollout.features.proposals.proposal_details import ProposalPage
from rollout.features.stops import stops
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import RefusalError
from rollout.live.policy_application import apply_policy
from tests.api.bears import CREEK, LAKE, POLICY, approved, scope_of, tick, widened
from tests.console.conftest import token_of
from tests.factories import HOUR, MINUTE, NOON, TICK

STOP = "/rollouts/bears/stop"
CONFIRM, STOPS = f"{STOP}/confirm", "/rollouts/bears/stops"
XSS = "<script>alert(1)</script>\"'"


def heading(page):
    return re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1]


def stop(browser, target="all", status=303, **more):
    return browser.submit(CONFIRM, status, on=f"{CONFIRM}?target=all", target=target, **more)


def followed(browser, answer):
    return browser.page(answer.headers["location"].removeprefix("/console"))


def test_one_rollout_alone_is_asked_about_at_once(browser):
    answer = browser.as_("ana").get("/console/stop", follow_redirects=False)
    assert answer.headers["location"] == f"/console{STOP}"


def test_of_several_rollouts_it_asks_which(browser, service):
    other = POLICY.replace("rollout: bears", "rollout: deer")
    apply_policy(
        service.database, other, Actor("zoe"), NOON, salt=bytes(32), service_salt=bytes(32)
    )
    page = browser.as_("ana").page("/stop")
    assert heading(page) == "Stop which rollout?"
    assert 'href="/console/rollouts/deer/stop"' in page


def test_who_operates_nothing_is_told_who_can(browser):
    page = browser.as_("vic").page("/stop")
    assert "You may not stop any rollout" in page
    assert "Operators can stop a rollout" in page
    assert "Refused: vic may not" in browser.page(STOP, 403)


def test_step_one_says_how_soon_it_holds_at_each_site_and_when_it_was_drilled(browser, service):
    widened(service.database, NOON, CREEK)
    page = browser.as_("ana").page(STOP)
    assert "Everything: 2 sites, 4 cells" in page
    assert '<option value="cell/creek/day"' in page
    region = re.search(r'aria-labelledby="soon">(.*?)</section>', page, re.DOTALL)[1]
    pattern = r'lake</th><td[^>]*>([^<]*), <span class="soft"><time datetime="(.*?)"'
    span, at = re.search(pattern, region).groups()
    assert (span, datetime.fromisoformat(at)) == ("12 h 1 min", NOON + 12 * HOUR + MINUTE)
    assert re.search(r"creek</th><td[^>]*>1 min 1 s</td>", region)
    assert "Humans confirm what v1 proposes, as now" in region
    assert "No drill yet" in region
    stop(browser, drill="yes")
    drilled = browser.page(STOP)
    assert "Last drill" in drilled
    assert "by ana" in drilled
    assert "Already stopped: humans decide" in drilled


def test_step_one_says_what_the_model_does_in_the_current_window(browser, service, clock):
    widened(service.database, NOON, CREEK)
    clock.advance(10 * HOUR)
    region = browser.as_("ana").page(STOP)
    assert "Humans confirm what v1 proposes, as now" not in region
    assert "No version acts here at this hour: humans decide" in region


def test_step_two_asks_once_more_and_keeps_everything(browser):
    page = browser.as_("ana").page(f"{CONFIRM}?target=site/creek&reason=smoke%20{XSS}&drill=yes")
    assert heading(page) == "Stop creek in bears now?"
    assert "It takes effect at creek within 1 min 1 s." in page
    assert "smoke &lt;script&gt;" in page
    assert XSS not in page
    assert "This is a drill" in page
    assert "until other users approve a resume" in page
    back = re.search(r'href="(/console/rollouts/bears/stop\?[^"]*)"', page)[1]
    changed = browser.page(back.replace("&amp;", "&").removeprefix("/console"))
    assert '<option value="site/creek" selected>' in changed
    assert "smoke &lt;script&gt;" in changed
    assert 'name="drill" value="yes" checked' in changed


def test_a_stop_withholds_everything_and_says_what_holds_and_how_to_come_back(browser, service):
    widened(service.database, NOON, CREEK)
    browser.as_("ana")
    page = followed(browser, stop(browser, reason=f"smoke {XSS}"))
    assert scope_of(service.database).is_stopped(CREEK)
    assert heading(page) == "Stopped: humans decide"
    assert "creek within 1 min 1 s, lake within 12 h 1 min" in page
    assert "ana (you)" in page
    assert "smoke &lt;script&gt;" in page
    assert XSS not in page
    assert "needs approvals of 2 operators" in page
    assert "Request resume" in page


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        ("site/creek", {CREEK, Cell("creek", "night")}),
        ("cell/lake/day", {LAKE}),
    ],
)
def test_one_site_or_one_cell_is_stopped_alone_and_without_a_reason(
    browser, service, target, cells
):
    browser.as_("ana")
    page = followed(browser, stop(browser, target=target))
    (held,) = scope_of(service.database).stops.values()
    assert held.cells == cells
    assert not held.drill
    assert "No reason given" in page


def test_an_operator_of_one_site_stops_that_and_is_told_what_goes_on(browser, service):
    page = browser.as_("cleo").page(STOP)
    assert "All that you operate: 1 site, 2 cells" in page
    assert "You operate only creek. lake can be stopped by" in page
    assert "cell/lake" not in page
    confirm = browser.page(f"{CONFIRM}?target=all")
    assert heading(confirm) == "Stop all that you operate in bears now?"
    assert "Excluded: lake (cleo is no operator there)" in confirm
    done = followed(browser, stop(browser))
    (held,) = scope_of(service.database).stops.values()
    assert {cell.site for cell in held.cells} == {"creek"}
    assert "Not stopped by you: lake." in done
    refused = stop(browser, target="site/lake", status=403).text
    assert "There is a problem" in refused
    assert "cleo may not narrow, stop" in refused


@pytest.mark.parametrize("target", ["", "site/nowhere", "cell/creek/dusk", "site/*", XSS, "cell/x"])
def test_what_is_no_choice_stops_nothing_and_keeps_what_was_typed(browser, service, target):
    browser.as_("ana")
    answer = browser.submit(
        CONFIRM, on=f"{CONFIRM}?target=all", target=target, reason="kept", status=status_of(target)
    )
    assert 'value="kept"' in answer.text
    assert "<title>Error: Stop bears" in answer.text
    assert XSS not in answer.text
    assert not scope_of(service.database).stops
    assert (
        "There is a problem"
        in browser.get(f"/console{CONFIRM}", params={"target": target, "reason": "kept"}).text
    )


def status_of(target):
    return 404 if target in {"site/nowhere", "cell/creek/dusk"} else 422


def test_a_stop_is_done_only_with_its_own_forms_token(browser, service):
    browser.as_("ana")
    token = token_of(browser.page(f"{CONFIRM}?target=all"))
    fields = {"target": "all", "page_token": token}
    foreign = browser.post(
        f"/console{CONFIRM}", data=fields, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert foreign.status_code == 403
    assert browser.get(f"/console{CONFIRM}?target=all").status_code == 200
    assert not scope_of(service.database).stops


def test_stopping_what_is_stopped_shows_the_stop_that_holds(browser, service):
    browser.as_("ana")
    stop(browser, reason="first")
    page = followed(browser, stop(browser, reason="second"))
    assert len(scope_of(service.database).stops) == 1
    assert "“first”" in page


def test_the_newest_stop_comes_first_as_the_api_has_them(browser, service, clock):
    browser.as_("ana")
    for target, reason in (("cell/lake/day", "older"), ("cell/creek/day", "newer")):
        stop(browser, target=target, reason=reason)
        clock.advance(HOUR)
    for path in ("/rollouts/bears/stops", "/rollouts/bears"):
        page = browser.page(path).partition("<main")[2]
        assert 0 < page.index("newer") < page.index("older"), path
    listed = browser.get("/v1/rollouts/bears/stops").json()["items"]
    assert [item["reason"] for item in listed] == ["newer", "older"]


def test_a_reason_no_database_keeps_holds_up_no_stop(browser, service):
    browser.as_("ana")
    page = followed(browser, stop(browser, reason="a\0b" + "x" * 3_000))
    assert scope_of(service.database).is_stopped(CREEK)
    assert "a\N{REPLACEMENT CHARACTER}bxxx" in page


def test_an_address_of_no_stop_says_so_and_reflects_nothing(browser):
    page = browser.as_("ana").page(f"{STOP}/done?stop=S-9&stop={XSS}")
    assert heading(page) == "No such active stop"
    assert "alert" not in page


def test_sites_of_any_name_can_be_stopped(browser, service):
    site = parse_target("site/north%2Fgate%20%3Cb%3E%22")
    assert site.target.sites == ('north/gate <b>"',)
    with pytest.raises(RefusalError):
        parse_target("site/cr*")


def test_the_way_to_a_stop_runs_on_threads_that_nothing_else_takes():
    paths = ("/stop", STOP, CONFIRM, f"{STOP}/done", "/rollouts/bears/narrow")
    for path in paths:
        assert is_narrowing({"path": f"/console{path}", "method": "GET"})
    assert not is_narrowing({"path": "/console/rollouts/bears", "method": "GET"})
    assert not is_narrowing({"path": f"/console{STOPS}", "method": "GET"})


@pytest.mark.slow
def test_pages_that_hang_hold_up_no_stop(browser, service, monkeypatch):
    """Forty requests take every ordinary thread: both steps and what follows go on."""
    go_on, hanging = threading.Event(), threading.Semaphore(0)

    def hang(*_, **__):
        hanging.release()
        go_on.wait(30)
        return ProposalPage((), None)

    browser.as_("ana")
    monkeypatch.setattr("api.proposals.list_pages.load_proposals", hang)
    many = [
        threading.Thread(target=browser.get, args=("/console/rollouts/bears/proposals",))
        for _ in range(45)
    ]
    try:
        for one in many:
            one.start()
        for _ in range(40):  # as many as there are threads
            assert hanging.acquire(timeout=15)
        began = time.monotonic()
        assert "Stop bears" in browser.page(STOP)
        page = followed(browser, stop(browser, reason="now"))
        assert time.monotonic() - began < 8
        assert scope_of(service.database).is_stopped(CREEK)
        assert heading(page) == "Stopped: humans decide"
    finally:
        go_on.set()
        for one in many:
            one.join()


# Resume


def test_a_stop_is_resumed_by_a_proposal_that_others_approve(browser, service):
    widened(service.database, NOON, CREEK)
    browser.as_("ana")
    stop(browser, reason="smoke")
    (held,) = scope_of(service.database).stops
    page = browser.page(STOPS)
    assert heading(page) == "1 active stop"
    assert "Stop, narrow, resume" in page
    answer = browser.submit(f"{STOPS}/{held}/resume", on=STOPS)
    (proposal,) = scope_of(service.database).proposals.values()
    assert answer.headers["location"] == f"/console/rollouts/bears/proposals/{proposal.id}"
    asked = browser.page(STOPS)
    assert "A resume was requested" in asked
    assert "Request resume" not in asked
    approved(service.database, NOON)
    tick(service.database, NOON + TICK, cells=())
    assert heading(browser.page(STOPS)) == "No active stops"


def held_stop(service, browser, name="ana"):
    """Stop everything, and let `name` ask for its end; return the proposal."""
    browser.as_(name)
    stop(browser)
    (held,) = scope_of(service.database).stops
    browser.submit(f"{STOPS}/{held}/resume", on=STOPS)
    (proposal,) = scope_of(service.database).proposals
    return proposal


def one_more(service):
    """Let dan operate everywhere, a third beside ana and bo."""
    ada = load_local_caller(service.database, "ada")
    users.create_account(
        service.database, ada, "dan", at=NOON, role_assignments=[AssignedRole("operator")]
    )


def said_yes(service, proposal, *names):
    for name in names:
        caller = load_local_caller(service.database, name)
        evidence = scope_of(service.database).proposals[proposal].evidence_hash
        proposals.approve_proposal(service.database, caller, "bears", proposal, evidence, at=NOON)


def text_of(page):
    """Return the words of a page without its tags."""
    return " ".join(re.sub(r"<[^>]*>", "", page).split())


def test_a_resume_that_is_asked_for_says_whom_it_waits_for(browser, service):
    one_more(service)
    proposal = held_stop(service, browser)
    mine = text_of(browser.page(STOPS))
    assert "A resume was requested; others must approve it: bo and dan can. Read it" in mine
    assert "Read and decide" not in mine
    theirs = text_of(browser.as_("bo").page(STOPS))
    decide = rf"A resume was requested. Read and decide: resume S-\d \({proposal}\)"
    assert re.search(decide, theirs)


def test_an_approved_resume_says_what_it_waits_for_and_asks_for_nothing(browser, service):
    one_more(service)
    said_yes(service, held_stop(service, browser), "bo", "dan")
    for name in ("ana", "bo"):
        page = text_of(browser.as_(name).page(STOPS))
        assert "The resume is approved. It takes effect within 15 min. Read it" in page
        assert "Read and decide" not in page
        assert "was requested" not in page


def test_a_page_of_stops_is_another_once_its_resume_is_approved(browser, service):
    def version():
        return re.search(r'id="version" data-of="([^"]*)"', browser.page(STOPS))[1]

    one_more(service)
    proposal = held_stop(service, browser)
    asked = version()
    assert version() == asked
    said_yes(service, proposal, "bo", "dan")
    assert version() != asked


def test_an_approved_resume_in_a_freeze_says_what_holds_it(browser, service):
    one_more(service)
    frozen = f'{POLICY}freezes: [{{hours: 24/7, reason: "the season"}}]\n'
    apply_policy(service.database, frozen, Actor("zoe"), NOON)
    said_yes(service, held_stop(service, browser), "bo", "dan")
    page = text_of(browser.page(STOPS))
    assert "The resume is approved. It waits for the end of the freeze (the season)." in page


@pytest.mark.slow
def test_whoever_asks_and_leaves_too_few_is_told_before_and_after(browser, service):
    browser.as_("ana")
    stop(browser)
    before = text_of(browser.page(STOPS))
    says = "o alone can approve it, but it needs 2 operators other than ana; give 1 more user"
    assert f"If you ask, b{says} the role operator at creek and lake." in before
    (held,) = scope_of(service.database).stops
    answer = browser.submit(f"{STOPS}/{held}/resume", on=STOPS)
    after = text_of(browser.page(answer.headers["location"].removeprefix("/console")))
    assert f"Approvers are missing: b{says}" in after
    assert f"A resume was requested; b{says}" in text_of(browser.page(STOPS))
    one_more(service)
    assert says not in text_of(browser.page(STOPS))


def test_who_may_not_ask_sees_who_can(browser, service):
    one_more(service)
    browser.as_("ana")
    stop(browser)
    page = text_of(browser.as_("sue").page(STOPS))
    assert "can request a resume: ana, bo and dan." in page
    assert "Request resume" not in page


def test_who_operates_a_part_of_a_stop_may_not_ask_for_its_end(browser, service):
    ana = load_local_caller(service.database, "ana")
    stops.stop_cells(service.database, ana, "bears", StopTarget(is_everything=True), at=NOON)
    (held,) = scope_of(service.database).stops
    page = browser.as_("cleo").page(STOPS)
    assert "Request resume" not in page
    assert "An operator of all its sites can request" in page
    refused = browser.submit(f"{STOPS}/{held}/resume", 403, on="/")
    assert "cleo may not" in refused.text
    gone = browser.submit(f"{STOPS}/S-99/resume", 404, on="/").text
    assert "Refused: no stop S-99 holds" in gone


def test_rights_that_end_meanwhile_end_the_stop_button(browser, service, clock):
    browser.as_("cleo")
    page = browser.page(f"{CONFIRM}?target=all")
    ada = load_local_caller(service.database, "ada")
    users.update_account(service.database, ada, "cleo", AccountUpdate(is_disabled=True), at=NOON)
    clock.advance(HOUR)
    answer = browser.post(
        f"/console{CONFIRM}",
        data={"page_token": token_of(page), "target": "all"},
        follow_redirects=False,
    )
    assert (answer.status_code, "You are signed out" in answer.text) == (401, True)
    assert not scope_of(service.database).stops
