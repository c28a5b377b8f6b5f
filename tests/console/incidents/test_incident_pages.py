"""Incidents as pages: what tripped, what it did, how it comes back, that somebody has seen it."""

import html
import json
import re
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from urllib.parse import quote

import numpy as np
import pytest

from api.incidents.pages import build_count_rows
from rollout.engine.decide import incident_kinds, incidents
from rollout.engine.decide.commands import (
    Actor,
    AddVersion,
    OpenIncident,
    StopAfterRollback,
    StopChangedCells,
)
from rollout.engine.decide.incident_kinds import (
    INCIDENT_KINDS,
    IncidentEffect,
    IncidentKind,
    name_late,
)
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.scope import build_initial_state
from rollout.features.incidents.incident_causes import load_detector_course
from rollout.features.incidents.incident_impact import (
    EvidencePeriod,
    begin_counts,
    load_incident_impact,
)
from rollout.features.reports.pages.number_charts import format_evidence
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import FORBIDDEN, LOST_HEAD, Trigger
from rollout.kernel.policy.cell_evidence import EvidenceCounts, GuardReading
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.words import say_cause
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.api.bears import CREEK, LAKE, POLICY, founded, scope_of, tick, widened
from tests.console.divergences.divergence_rows import count
from tests.console.told_cases import newcomer
from tests.factories import HOUR, MET, MINUTE, NOON, TICK
from tests.features.incidents.cause_town import (
    CHANGE,
    END,
    alarm_town,
    find_time,
    open_incident,
    tell_cases,
)

ON_BOTH_ENGINES = True
SCRIPT = "<script>alert(1)</script>"
PATH = "/rollouts/bears/incidents/I-1"


@pytest.fixture
def alarmed(service, clock):
    """Narrow creek, then lake, by the agreement guard."""
    database = service.database
    widened(database, NOON, CREEK, LAKE)
    guards = parse_policy(POLICY).list_guards(CREEK)
    (guard,) = (guard for guard in guards if guard.condition.measure.name == "agreement")
    loud = replace(MET, guards={guard.id: GuardReading(is_alarm=True, value=12, records=40)})
    tick(database, NOON + TICK, cells=(CREEK,), of=loud)
    tick(database, NOON + 2 * TICK, cells=(LAKE,), of=loud)
    clock.advance(HOUR)


@pytest.mark.slow
def test_open_incidents_come_first_with_what_tripped(browser, alarmed):
    text = browser.as_("vic").page("/incidents")
    assert "2 open incidents" in text
    assert text.index("lake · day was narrowed") < text.index("creek · day was narrowed")
    assert "12 of 40 blind decisions disagree" in text
    assert "No acknowledged incidents yet." in text


def test_two_incidents_of_one_cell_have_headings_of_their_own(browser, service, clock, alarmed):
    database = service.database
    widened(database, NOON + HOUR, CREEK)
    guards = parse_policy(POLICY).list_guards(CREEK)
    (guard,) = (guard for guard in guards if guard.condition.measure.name == "agreement")
    loud = replace(MET, guards={guard.id: GuardReading(is_alarm=True, value=12, records=40)})
    tick(database, NOON + HOUR + TICK, cells=(CREEK,), of=loud)
    clock.advance(HOUR)
    text = browser.as_("ana").page("/incidents")
    headings = [f"Incident {name}: creek · day was narrowed" for name in ("I-3", "I-1")]
    assert re.findall(r">(Incident [^<]*creek · day was narrowed)<", text) == headings
    for heading, name in zip(headings, ("I-3", "I-1"), strict=True):
        page = browser.page(f"/rollouts/bears/incidents/{name}")
        assert f"<h1>{heading} from supervised to shadow</h1>" in page
        assert f"<title>{heading} from supervised to shadow" in page
    overview = browser.page("/")
    tasks = re.findall(r">(Acknowledge incident I-\d: alarm at creek · day)<", overview)
    assert len(tasks) == len(set(tasks)) == 2


def test_one_that_was_seen_stands_below_the_open_ones(browser, alarmed):
    browser.as_("ana").submit(PATH, note="snow on the lens")
    text = browser.page("/incidents")
    assert "1 open incident" in text
    assert text.index("lake · day was narrowed") < text.index("creek · day was narrowed")
    assert "ana, <time" in text


def test_nothing_open_says_what_comes(browser):
    text = browser.as_("vic").page("/incidents")
    assert "No open incidents" in text
    assert "When a guard trips" in text


def test_the_page_says_what_tripped_what_it_did_and_how_it_comes_back(browser, alarmed):
    text = browser.as_("vic").page(PATH)
    assert "creek · day was narrowed from supervised to shadow" in text
    assert "Agreement at least 93" in text
    assert "expected at most once in 10,000 decided units" in text
    assert "so the whole share may still be within the threshold." in text
    assert 'data-label="Before">Supervised' in text
    assert 'data-label="Now">Shadow' in text
    assert "from zero. Now: no attempt yet; the next would be number 2 of the year" in text
    assert "a unit closes about " in text
    assert "The guard also counted open units: 12 of 40 blind decisions disagree." in text
    assert "narrowed from supervised to shadow" in text.lower()


def test_a_restarted_version_has_the_ledgers_number_of_its_attempt(
    browser, service, clock, alarmed
):
    database = service.database
    widened(database, NOON + HOUR, CREEK)
    guards = parse_policy(POLICY).list_guards(CREEK)
    (guard,) = (guard for guard in guards if guard.condition.measure.name == "agreement")
    loud = replace(MET, guards={guard.id: GuardReading(is_alarm=True, value=12, records=40)})
    tick(database, NOON + HOUR + TICK, cells=(CREEK,), of=loud)
    clock.advance(HOUR)
    text = browser.as_("vic").page(PATH)
    restarts = (
        "from zero. Now: no attempt yet; the next would be number 3 of the year in this cell."
    )
    assert restarts in text
    assert restarts in browser.page("/rollouts/bears/incidents/I-3")


def test_whoever_may_not_acknowledge_sees_who_can(browser, alarmed):
    text = browser.as_("vic").page(PATH)
    assert "Acknowledging takes an operator at creek of bears" in text
    assert 'name="note"' not in text
    token = {"note": "mine"}
    assert browser.submit(PATH, 403, on="/", **token).status_code == 403


def test_acknowledging_keeps_the_note_and_gives_nothing_back(browser, service, alarmed):
    before = scope_of(service.database).cells
    answer = browser.as_("ana").submit(PATH, note=f"snow {SCRIPT} & more")
    assert answer.headers["location"] == f"/console{PATH}"
    text = browser.page(PATH)
    assert "ana acknowledged it" in text
    assert SCRIPT not in text
    assert "snow &lt;script&gt;" in text
    assert scope_of(service.database).cells == before
    assert 'name="note"' not in text


def test_a_note_that_is_too_long_comes_back_as_it_was_typed(browser, alarmed):
    long = "x" * 2_001
    answer = browser.as_("ana").submit(PATH, 422, note=long)
    assert long in answer.text
    assert "Shorten the note" in answer.text
    assert "<title>Error: " in answer.text


def test_an_operator_of_one_site_sees_and_acknowledges_their_own_alone(browser, alarmed):
    text = browser.as_("cleo").page("/incidents")
    assert "creek · day" in text
    assert "lake" not in text
    browser.submit(PATH, note="")
    assert browser.page("/rollouts/bears/incidents/I-2", 403)


def test_who_reads_no_rollout_is_told_why(browser, alarmed):
    text = browser.as_("rita").page("/incidents", 403)
    assert "rita may not read" in text


def test_an_incident_of_no_cell_says_what_it_means(browser, service, alarmed):
    rewound = OpenIncident(
        at=NOON + HOUR, kind="ledger_rolled_back", reason=f"saw {SCRIPT}", about=SCRIPT
    )
    execute_command(service.database, "bears", lambda _: rewound)
    assert SCRIPT not in browser.as_("cleo").page("/incidents")
    text = browser.page("/rollouts/bears/incidents/I-3")
    assert "a client knows a later ledger head" in text
    assert "It changed no permissions of any cell" in text
    assert SCRIPT not in text
    assert "an operator of every site" in text


@pytest.mark.parametrize("about", ["", (NOON + 365 * TICK).isoformat()])
def test_what_acknowledging_a_clock_that_is_behind_does_is_said_first(browser, service, about):
    """One of clocks that disagree is only read."""
    opened = OpenIncident(at=NOON, kind="clock", reason="behind", about=about)
    execute_command(service.database, "bears", lambda _: opened)
    page = browser.as_("ana").page(PATH)
    assert ("sets the rollout's time back" in page) == bool(about)
    assert page.count("when it is due") == bool(about)
    assert ("It changes no permissions." in page) == (not about)
    browser.submit(PATH, note="the clock is right")
    assert ("This changed no permissions." in browser.page(PATH)) == (not about)


def test_a_ledger_that_was_set_back_says_what_is_stopped_and_how_it_resumes(
    browser, service, alarmed
):
    lost = Trigger(LOST_HEAD, {"revision": "99"})
    command = StopAfterRollback(at=NOON + HOUR, era=1, trigger=lost, about="r")
    execute_command(service.database, "bears", lambda _: command)
    text = browser.as_("cleo").page("/rollouts/bears/incidents/I-3")
    assert "Every cell is stopped" in text
    assert "approvals of the highest gate" in text
    assert "r has seen revision 99, which this ledger lost" in browser.page("/incidents")
    assert "a client has seen revision 99" in browser.page("/rollouts/bears/stops")


def test_the_list_says_what_acted_on_which_case(browser, service, alarmed):
    trigger = Trigger(FORBIDDEN, {"later": "case"})
    incident = OpenIncident(
        at=NOON + HOUR, kind="unauthorized", trigger=trigger, version="v1", about="c-7"
    )
    execute_command(service.database, "bears", lambda _: incident)
    said = say_cause("", trigger, about="c-7", version="v1")
    assert said.startswith("v1 acted on c-7: its case came later")
    assert said in html.unescape(browser.as_("cleo").page("/incidents"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in INCIDENT_KINDS.values() if kind.has_command])
def test_each_kind_has_a_page_from_its_declaration(browser, service, kind):
    command = OpenIncident(at=NOON, kind=kind.name, reason="a reason")
    execute_command(service.database, "bears", lambda _: command)
    text = html.unescape(browser.as_("ana").page(PATH))
    assert f">{kind.tag}</span>" in text
    assert f"Incident I-1: {kind.meaning}" in text
    words = text.replace("<code>", "`").replace("</code>", "`")
    for sentence in (kind.effects[0].outcome, *kind.effects[0].recovery):
        assert sentence in words
    assert "`" not in text.split("<main")[1].split("<aside")[0]
    assert ("Verify the ledger" in text) == kind.leads_to_ledger


def test_a_late_harm_says_that_nothing_was_narrowed_and_what_to_find_out(browser, service):
    line = "guards:\n  - {measure: harm, at_most: 0, over: 7d, then: shadow, reach: rollout}\n"
    text = POLICY.replace("guards:\n", line)
    founded(service.database, NOON - HOUR)
    apply_policy(service.database, text, Actor("zoe"), NOON - HOUR)
    guards = parse_policy(text).list_guards(CREEK)
    (guard,) = (guard for guard in guards if guard.condition.measure.name == "harm")
    reading = GuardReading(is_alarm=True, value=1, records=1)
    late = replace(MET, guards={name_late(guard.id): reading})
    tick(service.database, NOON + TICK, cells=(CREEK,), of=late)
    text = html.unescape(browser.as_("ana").page(PATH))
    assert "Incident I-1: creek · day has a harm that came late" in text
    assert "Nothing was narrowed: the model acted on the case before" in text
    assert "Stop cells where it may not." in text
    assert "It applies to the whole rollout" not in text
    assert "/cases?site=creek&outcome=harm" in text
    assert "Late harm" in browser.as_("ana").page("/incidents")


def test_a_kind_that_is_declared_is_opened_and_has_a_page(browser, service, monkeypatch):
    effect = IncidentEffect("noted", "Somebody has to look at the lens.", ("Clean it.",))
    lens = IncidentKind("lens", "warn", "Lens", "snow lies on the lens", (effect,), is_single=True)
    for module in (incident_kinds, incidents):
        monkeypatch.setattr(
            module, "INCIDENT_KINDS", incident_kinds.INCIDENT_KINDS | {"lens": lens}
        )
    for reason in ("much", "more"):
        command = OpenIncident(at=NOON, kind="lens", reason=reason)
        execute_command(service.database, "bears", lambda _, command=command: command)
    page = browser.as_("ana").page(PATH)
    assert "Incident I-1: snow lies on the lens" in page
    assert re.search("Somebody has to look at the lens.*Clean it.", page, re.DOTALL)
    assert "I-2" not in browser.page("/incidents")


def test_evidence_that_stopped_cells_says_so_and_how_they_resume(browser, service):
    """Seen: grants and proposals stay, though the cell was stopped."""
    widened(service.database, NOON, CREEK)
    command = StopChangedCells(at=NOON + TICK, cells=(CREEK,), cell=CREEK, reason="31 of 32")
    execute_command(service.database, "bears", lambda _: command)
    page = browser.as_("ana").page(PATH)
    assert "The cells in which it counts are stopped" in page
    assert "Then propose a resume." in page
    assert "Grants and proposals stay" not in page


def test_the_open_ones_are_read_in_pages(browser, service, alarmed, monkeypatch):
    monkeypatch.setattr("api.incidents.pages.MAX_OPEN_INCIDENTS", 1)
    text = browser.as_("vic").page("/incidents")
    assert "creek · day" not in text
    further = text.split('href="/console/incidents?older=')[1].split('"')[0]
    assert "creek · day" in browser.page(f"/incidents?older={further}")
    assert browser.page("/incidents?older=eHg", 422)


@pytest.mark.slow
def test_incidents_that_are_counted_and_not_opened_are_said_on_both_pages(browser, service):
    for n in range(52):
        told = OpenIncident(at=NOON, kind="unauthorized", reason=f"{n}", cell=CREEK, about=f"{n}")
        service.incident_opener.open_or_count("bears", told, f"{n}")
    sentence = "creek · day: 2 further incidents (unauthorized action) are counted, not opened"
    assert browser.as_("vic").page("/incidents").count(sentence) == 1
    assert sentence[0].upper() + sentence[1:] in browser.page(PATH)


def test_an_incident_that_never_was_is_not_found(browser, alarmed):
    assert "Refused: there is no incident I-9" in browser.as_("vic").page(
        "/rollouts/bears/incidents/I-9", 404
    )


def test_a_note_after_somebody_elses_is_said_not_to_be_kept(browser, alarmed):
    browser.as_("bo").submit(PATH, note="snow")
    text = browser.as_("ana").submit(PATH, 422, on="/", note="ice on the lens").text
    assert "bo had acknowledged it already" in text
    assert "ice on the lens" in text
    browser.as_("bo").submit(PATH, on="/", note="snow")


GUARDED = POLICY.replace(
    "takeover",
    """  - {measure: heartbeat, at_most: 2h}
  - {measure: action_change, at_most: 5, action: siren}
  - {measure: harm, at_most: 0, reach: rollout}
takeover""",
)


@pytest.fixture
def guarded(service, clock):
    """Widen both sites under guards of every kind; return what lets one of them trip."""
    apply_policy(service.database, GUARDED, Actor("zoe"), NOON)
    widened(service.database, NOON, CREEK, LAKE)
    guards = {g.condition.measure.name: g for g in parse_policy(GUARDED).guards}

    def trip(measure, at, *, alarm=True):
        since = None if alarm else NOON
        reading = GuardReading(is_alarm=alarm, value=12, records=40, good_since=since)
        of = replace(MET, guards={guards[measure].id: reading})
        tick(service.database, at, cells=(CREEK,), of=of)
        clock.advance(at - clock.now())

    return trip


def test_what_is_suspended_returns_by_itself_and_then_is_back(browser, guarded):
    guarded("heartbeat", NOON + TICK)
    text = browser.as_("vic").page(PATH)
    assert "creek · day was suspended" in text
    assert "Grants are withheld, not ended" in text
    assert "The grants return automatically after" in text
    assert 'Now">Shadow (suspended)' in text
    guarded("heartbeat", NOON + 2 * HOUR, alarm=False)
    text = browser.page(PATH)
    assert "Recovered: the cell is supervised again" in text
    assert "recovers" in text


def test_what_is_reported_takes_nothing(browser, guarded):
    guarded("action_change", NOON + TICK)
    text = browser.as_("vic").page(PATH)
    assert "creek · day is reported by a guard" in text
    assert "Nothing was ended, so nothing has to be restored" in text
    assert 'data-label="Now">Supervised' in text
    further = browser.as_("ana").page(PATH).split('class="btn" href="/console')[1].split('"')[0]
    assert "<option" in browser.page(further)
    assert 'value="cell/creek/day" selected' in browser.page(further)


@pytest.mark.slow
def test_an_alarm_that_reaches_further_shows_each_reader_their_own_sites(browser, guarded):
    guarded("harm", NOON + TICK)
    text = browser.as_("vic").page(PATH)
    assert "One other cell went down with it" in text
    assert "lake · day" in text
    text = browser.as_("cleo").page(PATH)
    assert "creek · day" in text
    assert "lake" not in text
    assert "other cell" not in text


def test_an_incident_of_a_late_pass_counts_from_its_slot():
    state = build_initial_state(NOON - HOUR, ())
    late = NOON + TICK - timedelta(seconds=1)
    assert begin_counts(state, late, TICK).changed_at == NOON
    assert begin_counts(state, NOON, TICK).changed_at == NOON


def test_what_was_counted_before_and_since_stands_beside_each_other():
    def span(good, bad, missing=0):
        counted = EvidenceCounts(
            closed=good + bad, missing=missing, counts={("agreement", None, None): (good, bad)}
        )
        return EvidencePeriod(NOON, NOON + HOUR, counted)

    told = SimpleNamespace(period_before=span(33, 0), period_after=span(1_100, 6, 4))
    rows = {row.what: (row.before, row.since) for row in build_count_rows(told)}
    assert rows["Units with a decision"] == ("33", "1,102")
    assert rows["Agreement"][0] == "100\xa0% (89.4 to 100\xa0%), 33 of 33"
    assert rows["Agreement"][1].endswith("1,100 of 1,106")
    assert rows["Closed without a decision"] == ("0 of 33", "4 of 1,106")
    assert (
        build_count_rows(SimpleNamespace(period_before=span(0, 0), period_after=span(0, 0))) == ()
    )
    assert build_count_rows(SimpleNamespace(period_before=None, period_after=None)) == ()


@pytest.mark.slow
def test_names_of_sites_are_text_wherever_they_stand(browser, service, clock):
    site = f"'\"/{SCRIPT} ü🐻"
    odd = json.dumps(site, ensure_ascii=False)
    text = POLICY.replace("rollout: bears", "rollout: odd").replace("[creek,", f"[{odd},")
    apply_policy(service.database, text, Actor("zoe"), NOON)
    execute_command(service.database, "odd", lambda _: AddVersion(at=NOON, version=SCRIPT))
    told = {"kind": "unauthorized", "reason": SCRIPT, "about": site, "version": SCRIPT}
    opened = OpenIncident(at=NOON, cell=Cell(site, "day"), **told)
    execute_command(service.database, "odd", lambda _: opened)
    browser.as_("ada")
    browser.submit(
        "/settings/users/vic", do="give", role="operator", rollout="odd", site=site, group=""
    )
    pages = (
        "/incidents",
        "/rollouts/odd/incidents/I-1",
        "/rollouts/odd/ledger",
        f"/rollouts/odd/ledger?site={quote(site)}",
        "/rollouts/odd/settings",
        "/settings/users",
        "/settings/users/vic",
        "/settings/reviewers",
        "/ledger/access",
    )
    for path in pages:
        shown = browser.page(path)
        assert SCRIPT not in shown, path
        assert "ü🐻" in shown, path
    clock.advance(HOUR)
    browser.as_("vic").submit("/rollouts/odd/incidents/I-1", note=site)
    assert SCRIPT not in browser.page("/rollouts/odd/incidents/I-1")


@pytest.fixture
def caused(service, clock):
    """Open an incident in a cell where v1 misreads a new lens."""
    tell_cases(service.database)
    open_incident(service.database)
    count(service.database, at=END)
    clock.advance(END - clock.now())


def read_headline(page):
    """Return the first sentence without tags."""
    return re.sub(
        r"<[^>]*>", "", re.search(r'</h1>\s*<p class="lede">(.*?)</p>', page, re.DOTALL)[1]
    )


@pytest.mark.slow
def test_the_page_begins_with_its_cause(browser, caused):
    text = browser.as_("ana").page(PATH)
    headline = read_headline(text)
    assert headline.startswith("Since Sun 6 Jun 06:00 UTC")
    sentence = (
        "cases with lens = new differ in 32 of 64 (50.0\u00a0%, 32.3 to 67.7\u00a0%);"
        " other cases in the same time in 0 of 16, before in 3 of 160."
    )
    assert sentence in headline
    assert "were compared with all other cases of the same time" in text
    assert "at most 5\u00a0%" in text


def test_a_click_filters_the_divergences_to_the_value(browser, caused):
    link = re.search(r'href="/console(/[^"]*)"[^>]*>Show these', browser.as_("ana").page(PATH))[1]
    link = link.replace("&amp;", "&")
    assert "32 divergences" in browser.page(link)
    assert "32 divergences" not in browser.page(link.replace("lens=new", "lens=old"))


def test_the_first_case_with_a_new_value_is_a_mark_of_the_timeline(browser, service, caused):
    mark = r"</strong> <time[^>]*>Sun 6 Jun 06:00 UTC</time>: first case with lens = new</li>"
    page = browser.as_("ana").page(PATH)
    assert re.search(mark, page)
    newcomer(service, "nan", AssignedRole("viewer"), AssignedRole("reviewer"))
    assert "first case with" not in browser.as_("nan").page(PATH)  # who reads no values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("last", "words"),
    [
        (CHANGE + 12, "None is listed there yet"),
        (CHANGE + 75, "The newest are not listed there yet"),
    ],
)
def test_cases_of_a_cause_that_are_not_listed_yet_are_said_to_be(
    browser, service, clock, last, words
):
    """Seen: 15 of 30 differ, and behind "Show these divergences" none of 0 compared cases."""
    tell_cases(service.database)
    open_incident(service.database)
    at = find_time(last) + MINUTE
    count(service.database, at=at)
    clock.advance(at - clock.now())
    text = browser.as_("ana").page(PATH)
    assert "cases with lens = new" in read_headline(text)
    assert f"{words}: a case is listed once it has closed, about 1 d after it began." in text
    listed = browser.page(
        re.search(r'href="/console(/[^"]*)"[^>]*>Show these', text)[1].replace("&amp;", "&")
    )
    is_empty = re.search("No case from .* is compared.", listed) is not None
    assert is_empty == words.startswith("None")
    assert is_empty == ("Show these divergences (none closed yet)</a>" in text)


def test_reviewers_names_are_read_by_operators_alone(browser, caused):
    assert "reviewer = " in browser.as_("ana").page(PATH)
    assert "reviewer = " not in browser.as_("vic").page(PATH)


@pytest.fixture
def narrowed(service, clock):
    """Let v1 misread a new lens until the guard of creek narrows it."""
    alarm_town(service.database)
    clock.advance(END - clock.now())


@pytest.mark.slow
def test_the_course_of_the_detector_is_drawn_and_told_in_a_table(browser, service, narrowed):
    caller = Caller("ana", role_assignments=(AssignedRole("operator"), AssignedRole("viewer")))
    impact = load_incident_impact(service, caller, "bears", "I-1", at=END)
    course = load_detector_course(service, caller, "bears", impact, at=END).course
    text = browser.as_("ana").page(PATH)
    last = course.points[-1]
    assert f"Value at the alarm: {format_evidence(last.log_value)}; threshold: 10,000." in text
    assert f"By then {last.against} of {last.records} blind decisions disagree." in text
    assert f"{last.against} of {last.records} blind decisions disagree.<" in text
    (table,) = re.findall(r"<caption>The detector after.*?</table>", text, re.DOTALL)
    rows = re.findall(r'<td class="num">([^<]*)</td>' * 3, table)
    points = [(p.records, p.against, format_evidence(p.log_value)) for p in course.points]
    assert rows == [(str(records), str(against), value) for records, against, value in points]
    for line in re.findall(r'class="tl-bound tl-0" d="M([^"]*)"', text)[-2:]:
        pairs = [tuple(map(float, pair.split(" "))) for pair in line.split("L")]
        assert len(pairs) == len(points)
        heights = [-y for _, y in pairs]
        values = [point.log_value for point in course.points]
        assert np.corrcoef(heights, values)[0, 1] > 0.9999
        assert np.corrcoef([x for x, _ in pairs], range(len(pairs)))[0, 1] > 0.9999


@pytest.mark.slow
def test_who_may_be_asked_blind_reads_no_course(browser, service, narrowed):
    roles = (AssignedRole("viewer"), AssignedRole("reviewer", "bears", "creek"))
    newcomer(service, "nan", *roles)
    text = browser.as_("nan").page(PATH)
    assert "The detector&#39;s course is not shown to you" in text
    assert "Value at the alarm" not in text


def test_without_a_judged_case_the_page_says_so(browser, alarmed):
    headline = read_headline(browser.as_("vic").page(PATH))
    assert headline == "No case with a blind decision is counted around this incident yet."
