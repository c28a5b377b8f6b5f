"""A proposal as a page: what it asks, on which evidence, and the yes or no bound to that."""

import re
from dataclasses import replace
from functools import partial
from itertools import cycle

import pytest

from api.proposals.pages import compute_page_version
from api.proposals.proposal_text import describe_effect
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Accounts
from rollout.data.records.external_keys import ExternalKeys
from rollout.data.records.incoming_cases import ExposureStore
from rollout.engine.decide.commands import AcknowledgeIncident, Actor
from rollout.engine.decide.permissions import AssignedRole
from rollout.engine.decide.stops import StopTarget
from rollout.engine.events import Approved
from rollout.engine.words.evidence_text import VouchedUnits
from rollout.engine.words.formatting import OPENING_NOTE
from rollout.features.access import users
from rollout.features.access.users import AccountUpdate, load_local_caller
from rollout.features.policies import policies
from rollout.features.proposals.proposal_details import load_proposal
from rollout.features.proposals.proposal_evidence import load_proposal_evidence
from rollout.features.stops import stops
from rollout.kernel.policy.cell_evidence import GuardReading
from rollout.kernel.policy.evidence_sources import RegisteredUnits
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import execute_command, load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.api.bears import CREEK, LAKE, LOOSER, POLICY, approved, scope_of, tick, widened
from tests.console.proposals.raised_proposals import LIST, XSS, add_version, heading, rows
from tests.console.told_cases import CLOSED, asked_again, judged, mia
from tests.factories import DAY, MET, NOON, TICK, TURNED

pytestmark = pytest.mark.slow

P1, P2 = f"{LIST}/P-1", f"{LIST}/P-2"


@pytest.fixture
def _still_met(monkeypatch):
    """Let the evidence hold on: these proposals have no records from which to read it again."""

    def load(*args):
        return replace(load_proposal_evidence(*args), has_turned=False)

    monkeypatch.setattr("api.proposals.pages.load_proposal_evidence", load)


def approve(browser, raised, name="P-1", reason="two cubs", status=303, **more):
    fields = {"evidence": raised[name].evidence_hash, "reason": reason} | more
    return browser.submit(f"{LIST}/{name}/approvals", status, on=f"{LIST}/{name}", **fields)


# One proposal


def test_it_asks_what_it_would_allow_where_when_and_until_when(browser, raised):
    page = browser.as_("ana").page(P1)
    assert heading(page) == "Let v1 act under supervision at creek by day?"
    assert "creek only" in page
    assert "06:00-20:00" in page
    assert 'datetime="2027-06-01T06:00:00+00:00"' in page
    assert 'datetime="2027-08-30T12:00:00+00:00"' in page
    assert "the cell then returns to shadow" in page
    assert "Humans decide and see nothing of v1." in page
    assert "The case waits: the policy sets no time to answer." in page
    assert "2,000 of 2,000" in page
    assert 'data-label="Bound">99.7\N{NO-BREAK SPACE}%' in page
    assert page.index('data-label="Bound"') < page.index('data-label="So far"')
    assert page.replace("\N{NO-BREAK SPACE}", " ").count(OPENING_NOTE) == 1
    assert "No approvals yet; needs 2 more approvals." in page
    assert "Requires approvals of 2 operators" in page
    evidence = raised["P-1"].evidence_hash
    assert " ".join(evidence[i : i + 4] for i in range(0, 64, 4)) in page
    assert f'name="evidence" value="{evidence}"' in page


CHARTER = """
charter:
  objective: Wake the ranger for a bear.
  affected: [campers, the ranger]
  if_it_works_very_well: The ranger sleeps by day.
  worst_case: A bear stays unheard <b>all night</b>.
"""


def test_the_charter_is_folded_to_a_line_each_before_the_evidence(browser, service, raised):
    ada = load_local_caller(service.database, "ada")
    policies.put_policy(service.database, ada, "bears", POLICY + CHARTER, at=NOON)
    page = browser.as_("ana").page(P1)
    folded = re.findall(r"<details( open)?><summary>(.*?)</summary><p>(.*?)</p></details>", page)
    assert folded[:3] == [
        ("", "Who is affected", "Campers, the ranger."),
        ("", "Worst case", "A bear stays unheard &lt;b&gt;all night&lt;/b&gt;."),
        ("", "If it works very well", "The ranger sleeps by day."),
    ]
    assert page.index("<h1>") < page.index("Who is affected") < page.index('data-label="Bound"')


@pytest.mark.slow
@pytest.mark.usefixtures("_still_met")
def test_two_people_approve_each_with_a_reason_that_stays_with_their_name(browser, service, raised):
    browser.as_("ana")
    answer = approve(browser, raised, reason=f"two cubs {XSS}")
    assert answer.headers["location"] == f"/console{P1}"
    page = browser.page(P1)
    assert "<strong>ana</strong> (you), operator" in page
    assert "two cubs &lt;script&gt;" in page
    assert XSS not in page
    assert "ana has approved P-1 already." in page
    assert "bo and cleo can approve." in page
    browser.as_("bo")
    assert "Yours is the last approval: it takes effect within 15 min." in browser.page(P1)
    assert ", if approved now until " in browser.page(P1)
    approve(browser, raised, reason="I looked too")
    assert "All approvals are given" in browser.page(P1)
    assert ", until about " in browser.page(P1)
    tick(service.database, NOON + TICK)
    assert "It was approved and applied" in browser.page(P1)
    kept = [row.fields["reason"] for row in rows(service, "Approved")]
    assert kept == [f"two cubs {XSS}", "I looked too"]


@pytest.mark.parametrize("act", ["approvals", "rejection"])
@pytest.mark.parametrize("reason", ["", "x" * 2_001, "a\0b"])
def test_a_yes_or_no_without_a_sound_reason_is_not_counted(browser, raised, service, act, reason):
    browser.as_("ana")
    fields = {"evidence": raised["P-1"].evidence_hash, "reason": reason}
    page = browser.submit(f"{P1}/{act}", 422, on=P1, **fields).text
    assert "<title>Error: P-1" in page
    assert 'aria-describedby="reason-error"' in page
    assert not rows(service, "Approved")
    assert not rows(service, "ProposalRejected")


def test_a_no_closes_it_with_its_reason_and_says_so(browser, raised):
    browser.as_("bo")
    answer = browser.submit(f"{P1}/rejection", on=P1, reason="after the holidays", evidence="")
    assert answer.headers["location"] == f"/console{P1}"
    page = browser.page(P1)
    assert "bo (you) rejected it" in page
    assert "“after the holidays”" in page
    assert has_no_form(page)


def test_a_yes_to_other_evidence_is_refused_with_old_and_new_figures_and_the_reason_kept(
    browser, service, raised
):
    browser.as_("ana")
    other = raised["P-2"].evidence_hash
    page = approve(browser, raised, reason="I trust it", evidence=other, status=409).text
    assert "P-1 rests on other evidence than was shown" in page
    assert "You were shown" in page
    assert page.count("agreement at least 95\N{NO-BREAK SPACE}%: 2,000 of 2,000") >= 2
    assert ">I trust it</textarea>" in page
    assert f'name="evidence" value="{raised["P-1"].evidence_hash}"' in page
    assert not rows(service, "Approved")
    made_up = approve(browser, raised, evidence="0" * 64, status=409).text
    assert "that no proposal of this rollout had" in made_up


def test_a_yes_to_what_is_closed_meanwhile_says_what_became_of_it_and_what_asks_now(
    browser, service, raised
):
    browser.as_("ana").page(P1)
    browser.as_("ana")
    token_page = browser.page(P1)
    tick(service.database, NOON + TICK, of=TURNED)
    page = browser.post(
        f"/console{P1}/approvals",
        data={
            "page_token": re.search(r'name="page_token" value="([^"]*)"', token_page)[1],
            "evidence": raised["P-1"].evidence_hash,
            "reason": "looks fine",
        },
    )
    assert page.status_code == 409
    assert "the evidence has turned" in page.text
    assert "You had written: “looks fine”" in page.text
    assert not rows(service, "Approved")
    tick(service.database, NOON + 2 * TICK)
    again = browser.page(P1)
    assert "P-3 proposes the same on newer evidence" in again


def test_whoever_raised_it_is_told_who_can_approve(browser, service):
    widened(service.database, NOON, CREEK)
    ana = load_local_caller(service.database, "ana")
    held = stops.stop_cells(service.database, ana, "bears", StopTarget(is_everything=True), at=NOON)
    asked = stops.propose_resume(service.database, ana, "bears", held.active_stops[0].id, at=NOON)
    path = f"{LIST}/{asked.proposal}"
    page = browser.as_("ana").page(path)
    assert f"ana raised {asked.proposal}; ask another user to approve it." in page
    assert "bo can approve." in page
    assert "Approve proposal</button>" not in page
    resumes = browser.as_("bo").page(path)
    assert heading(resumes) == f"Resume after stop {held.active_stops[0].id}?"
    assert "Restored stage" in resumes
    assert "restores what stop" in resumes


def test_a_resume_shows_only_cells_whose_site_the_reader_may_read(browser, service):
    widened(service.database, NOON, CREEK)
    ana = load_local_caller(service.database, "ana")
    held = stops.stop_cells(service.database, ana, "bears", StopTarget(is_everything=True), at=NOON)
    asked = stops.propose_resume(service.database, ana, "bears", held.active_stops[0].id, at=NOON)
    path, row = (
        f"{LIST}/{asked.proposal}",
        'scope="row">{}</th><td role="cell" data-label="Version">',
    )
    assert row.format(CREEK) in browser.as_("vic").page(path)
    roles = {"roles_to_revoke": (AssignedRole("viewer"),)}
    roles["roles_to_grant"] = (AssignedRole("viewer", "bears", "lake"),)
    ada = load_local_caller(service.database, "ada")
    users.update_account(service.database, ada, "vic", AccountUpdate(**roles), at=NOON)
    service.authenticator.refresh()
    page = browser.page(path)
    assert row.format(CREEK) not in page
    assert row.format(LAKE) in page


@pytest.mark.usefixtures("_still_met")
def test_who_has_approved_may_still_say_no_before_it_is_applied(browser, service, raised):
    approve(browser.as_("ana"), raised)
    approve(browser.as_("bo"), raised)
    page = browser.as_("ana").page(P1)
    assert "All approvals are given. It takes effect within 15 min." in page
    assert "Approve proposal</button>" not in page
    browser.submit(f"{P1}/rejection", on=P1, reason="smoke came up")
    assert "ana (you) rejected it" in browser.page(P1)
    assert rows(service, "ProposalRejected")
    assert "Reject proposal</button>" not in browser.page(P1)


def test_who_may_not_approve_sees_why_and_no_form(browser, raised):
    page = browser.as_("vic").page(P1)
    assert "vic may not approve or reject" in page
    assert "ana, bo and cleo can approve." in page
    assert has_no_form(page)
    assert "lake" not in browser.as_("cleo").page(P1)
    assert browser.page(P2, 403)


def test_nobody_approves_past_the_form_who_could_not_with_it(browser, service, raised):
    browser.as_("vic")
    fields = {"evidence": raised["P-1"].evidence_hash, "reason": "me too"}
    refused = browser.submit(f"{P1}/approvals", 403, on="/", **fields)
    assert "vic may not approve or reject" in refused.text
    refused = browser.submit(f"{P1}/rejection", 403, on="/", **fields)
    assert "vic may not approve or reject" in refused.text
    assert not rows(service, "Approved")


def test_a_renewal_and_a_takeover_are_asked_in_words_of_their_own(browser, service):
    database = service.database
    widened(database, NOON, CREEK)
    late = NOON + 80 * DAY
    tick(database, late, of=MET)
    (renewal,) = scope_of(database).proposals.values()
    page = browser.as_("bo").page(f"{LIST}/{renewal.id}")
    assert renewal.kind == "renewal"
    assert heading(page) == "Let v1 go on acting under supervision at creek by day?"
    assert "the cell lapses to shadow and this proposal is void." in page
    assert "Closes " not in page
    add_version(service, "v2")
    approved(database, late)
    tick(database, late + TICK, cells=(), others={(CREEK, "v2"): MET})
    (takeover,) = scope_of(database).proposals.values()
    page = browser.page(f"{LIST}/{takeover.id}")
    assert heading(page) == "Let v2 take the place of v1 at creek by day?"


def test_a_policy_says_what_it_loosens_and_shows_its_text(browser, service):
    ada = load_local_caller(service.database, "ada")
    done = policies.put_policy(service.database, ada, "bears", LOOSER, at=NOON)
    path = f"{LIST}/{done.proposal}"
    page = browser.as_("ana").page(path)
    assert heading(page) == "Apply a looser policy?"
    assert "What it loosens" in page
    text = browser.page(f"{path}/policy")
    assert "+  - {to: supervised, require: [{measure: agreement, at_least: 94%}]," in text
    assert browser.page(f"{LIST}/P-9/policy", 404)


def test_the_ledger_of_before_has_no_reasons_and_reads_as_it_did(service, raised):
    yes = Approved(at=NOON, by="bo", proposal="P-1", groups=("operator",), evidence_hash="e")
    approved(service.database, NOON, Actor("dan"))
    assert all("reason_hash" not in row.body for row in rows(service, "Approved"))
    assert yes.reason == ""


# Several at once


# Asked for by hand


def test_a_person_who_was_disabled_is_not_named_as_who_can(browser, service, raised):
    ada = load_local_caller(service.database, "ada")
    users.update_account(service.database, ada, "bo", AccountUpdate(is_disabled=True), at=NOON)
    page = browser.as_("vic").page(P1)
    assert "ana and cleo can approve." in page
    users.create_account(
        service.database,
        ada,
        "eli",
        at=NOON,
        role_assignments=[AssignedRole("operator", "bears", "lake")],
    )
    assert "ana and cleo can approve." in browser.page(P1)


# The worst divergences


def test_the_worst_divergences_stand_there_as_text_and_their_showing_is_noted(browser, service):
    database, odd = service.database, f'a/"b" {XSS}'
    judged(database, odd, "bear", "none", attributes={f"camera {XSS}": XSS})
    judged(database, "seen", "bear", "none", media={"still": "https://pictures.example/1.jpg"})
    judged(database, "far", "none", "bear", media={"still": f"javascript:{XSS}"})
    Ticker(database, "bears", "one").tick(CLOSED)
    tick(database, CLOSED)
    page = browser.as_("ana").page(P1)
    section = page.split('id="worst"')[1].split("</section>")[0]
    assert section.count('class="card"') == 3
    assert "As counted now. Costs apply if the human is right. Units without" in section
    assert "siren instead of nothing, cost 1 (points)" in section
    assert '<img class="photo" src="https://pictures.example/1.jpg"' in section
    assert "javascript:" not in section
    assert XSS not in page
    assert "camera &lt;script&gt;" in section
    assert 'href="/console/rollouts/bears/cases/a%2F%22b%22%20' in section
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        numbers = ExternalKeys(transaction, rollout).find_ids({"seen"}).values()
        (noted,) = (
            ExposureStore(transaction, rollout).list_for_reviewer("ana", set(numbers)).values()
        )
    assert set(noted) == {("prediction", "proposal"), ("decisions", "proposal")}


def test_a_case_that_somebody_may_still_judge_is_kept_from_them_here_too(browser, service):
    judged(service.database, "missed", "none", "bear")
    Ticker(service.database, "bears", "one").tick(CLOSED)
    tick(service.database, CLOSED)
    mia(service)
    asked_again(service, "missed", NOON)
    section = browser.as_("mia").page(P1).split('id="worst"')[1].split("</section>")[0]
    assert "They are hidden while you may still decide" in section
    assert "missed" not in section
    assert "missed" in browser.as_("vic").page(P1)


# When it takes effect


@pytest.mark.parametrize(
    ("counts", "has_turned", "expected"),
    [
        ((838, 46), False, "the last one still takes effect: only evidence that has turned ("),
        ((838, 46), True, "The evidence has turned ("),
        ((2000, 0), False, ""),
    ],
)
def test_evidence_below_the_threshold_now_says_what_an_approval_still_does(
    browser, service, raised, monkeypatch, counts, has_turned, expected
):
    def load(*args):
        evidence = load_proposal_evidence(*args)
        readings = tuple(
            replace(reading, current=replace(reading.frozen, counts=counts, is_met=not counts[1]))
            for reading in evidence.readings
        )
        return replace(evidence, readings=readings, has_turned=has_turned)

    monkeypatch.setattr("api.proposals.pages.load_proposal_evidence", load)
    page = browser.as_("ana").page(P1)
    assert (": not met" in page) == bool(counts[1])
    assert expected in page
    assert page.count("evidence has turned") + page.count("that has turned") == bool(expected)
    assert ("It has no effect as the evidence stands now: " in page) == has_turned
    assert ("After yours it needs" in page) != has_turned


@pytest.mark.parametrize(
    ("more", "waits"),
    [
        (
            "freezes: [{hours: '00:00-24:00', reason: 'open <day>'}]",
            "end of the freeze (open <day>)",
        ),
        ("observe: true", "end of observing"),
        ("tick: 1h", ""),
    ],
)
def test_what_would_hold_an_approved_one_back_is_said_before_the_last_yes(
    browser, service, raised, more, waits
):
    name = "P-1"
    with service.database.begin_read() as transaction:
        stood = load_rollout_state(transaction, "bears")
    shown = load_proposal(
        service, load_local_caller(service.database, "ana"), "bears", name, at=NOON
    )
    policy = replace(parse_policy(f"{POLICY}{more}\n"), hash=stood.policy.hash)
    said = describe_effect(replace(stood, policy=policy), replace(shown, approvals_missing=1), NOON)
    assert said.startswith("Yours is the last approval: it ")
    assert (waits in said) if waits else said.endswith("takes effect within 1 h.")


@pytest.mark.usefixtures("_still_met")
def test_a_stop_that_holds_the_cell_holds_an_approved_widening_back(browser, service, raised):
    ana = load_local_caller(service.database, "ana")
    stops.stop_cells(service.database, ana, "bears", StopTarget(cells=(CREEK,)), at=NOON)
    approved(service.database, NOON)
    page = browser.as_("ana").page(P1)
    assert "All approvals are given. It waits for the resume of the stop" in page
    assert not re.search(r"if approved now|until about", page)
    assert "It was approved and applied" in browser.page(P2)


def test_narrowing_elsewhere_voids_it_and_stands_first_when_it_is_raised_again(browser, service):
    database = service.database
    widened(database, NOON)
    tick(database, NOON + DAY, cells=(LAKE,))
    (lake,) = [p for p in scope_of(database).proposals.values() if p.cell == LAKE]
    browser.as_("ana")
    page = browser.page(f"{LIST}/{lake.id}")
    assert "No guard on quality narrowed v1 in any cell, and no harm" in page
    alarmed = (GuardReading(is_alarm=True, value=9, records=9),)
    guard = load_policy(database).list_guards(CREEK)[0]
    of = replace(MET, guards=dict(zip((guard.id,), alarmed, strict=True)))
    tick(database, NOON + DAY + TICK, of=of, others={(LAKE, "v1"): MET})
    assert "I-1 spoke against v1 after it was raised" in browser.page(f"{LIST}/{lake.id}")
    by = Actor("bo")
    read = AcknowledgeIncident(at=NOON + DAY + TICK, by=by, incident="I-1")
    execute_command(database, "bears", lambda _: read)
    tick(database, NOON + DAY + 2 * TICK, cells=(LAKE,))
    (again,) = [p for p in scope_of(database).proposals.values() if p.cell == LAKE]
    page = browser.page(f"{LIST}/{again.id}")
    against, evidence = page.index("What speaks against it"), page.index('id="why"')
    fact = page.index("v1 was narrowed for quality in creek")
    assert page.index("<h1>") < against < fact < page.index('id="what"') < evidence
    assert "not acknowledged" not in page
    assert "Against it: v1 was narrowed for quality in creek" in browser.page(LIST)
    seen = partial(load_proposal, service, load_local_caller(database, "ana"), "bears", at=NOON)
    assert [len(seen(proposal.id).against) for proposal in (lake, again)] == [0, 1]


def test_a_page_that_was_drawn_before_a_fact_against_it_is_another_page(service, raised):
    details = load_proposal(
        service, load_local_caller(service.database, "ana"), "bears", next(iter(raised)), at=NOON
    )
    told = replace(details, against=("v1 was narrowed for quality",))
    assert compute_page_version(told) != compute_page_version(details)


def load_policy(database):
    with database.begin_read() as transaction:
        return load_rollout_state(transaction, "bears").policy


def has_no_form(page):
    return '<form method="post"' not in page.split("<main")[1]


def test_it_names_units_whose_sender_could_have_seen_the_answer(browser, raised, monkeypatch):
    units = (VouchedUnits("box-7", 380, 412, 180_000, ("ana",)),)
    place = "rollout.features.proposals.proposal_details._name_vouched_units"
    monkeypatch.setattr(place, lambda *_: units)
    page = browser.as_("ana").page(f"/rollouts/bears/proposals/{next(iter(raised))}")
    against = page[page.index("What speaks against it") : page.index("What this allows")]
    assert "380 of 412 units from box-7, which could have seen the answer" in against
    assert "(vouched for by ana, within 50h)" in against


def test_it_says_who_registered_the_cases(browser, raised, monkeypatch):
    units = (RegisteredUnits("box-7", 380, 360), RegisteredUnits("imports", 32, 0))
    counts = cycle([(), (), units])  # of decisions, of outcomes, and who registered the cases
    monkeypatch.setattr(Accounts, "name_sources", lambda *_: next(counts))
    page = browser.as_("ana").page(f"/rollouts/bears/proposals/{next(iter(raised))}")
    against = page[page.index("What speaks against it") : page.index("What this allows")]
    assert "Cases registered by: box-7 380, imports 32" in against
    assert "of them 360 by the account that also predicted them with v1" in against
