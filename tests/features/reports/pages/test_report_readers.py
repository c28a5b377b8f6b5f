"""Each reader's page: tiles first, at most five ranked findings, then folded sections."""

import ast
import inspect
import re
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rollout.engine.words.formatting import format_share_bound
from rollout.features.reports.figures.calibration import HUMANS, OUTCOMES, CoveragePoint
from rollout.features.reports.figures.drift import NewValue
from rollout.features.reports.figures.evidence_facts import OpenProposal
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages import findings
from rollout.features.reports.pages.findings import SEVERITIES, rank_findings
from rollout.features.reports.pages.html_report import label_cells, render_html_report
from rollout.features.reports.pages.report_tiles import (
    build_cell_rows,
    build_tiles,
    describe_stage_changes,
)
from rollout.features.reports.pages.section_summaries import SECTIONS
from rollout.features.reports.pages.summary import describe_results
from rollout.kernel.calendar.instants import SHADOW
from rollout.kernel.statistics.intervals import compute_share
from tests.features.reports.conftest import NOON

TEMPLATES = Path(__file__).parents[4] / "rollout/features/reports/templates"
READERS = ("operator", "engineer", "auditor")
OPEN = {
    "next_step": "widening to supervised (P-3) needs 2 more approvals; open until Mon 9 Mar",
    "proposal": OpenProposal(
        "creek", "day", "v1", "widening", "supervised", "P-3", needed=2, until="Mon 9 Mar"
    ),
}
PRIVATE_WORDS = re.compile(
    r"\b(verdicts?|people|persons?|set aside|somebody|anybody|nobody|whoever|dearest|taken back"
    r"|unseen|in sight)\b",
    re.IGNORECASE,
)


def pending(facts, proposal):
    """Return the facts with an open proposal in the first cell."""
    first, *rest = facts.evidence
    return replace(facts, evidence=(replace(first, **proposal), *rest))


def texts(html):
    """Return what a page shows, without style sheet and tags."""
    body = re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


@pytest.mark.parametrize("reader", READERS)
def test_a_page_begins_with_tiles_then_findings_then_folded_sections(facts, reader):
    page = render_html_report(facts, reader)
    assert page.index('class="tiles"') < page.index("What to know") < page.index('class="fold"')
    sections = [section for section in SECTIONS.values() if section.reader == reader]
    assert re.findall(r"<details class=\"fold\"( open)?>", page) == [""] * len(sections)
    assert 3 <= len(build_tiles(facts, reader)) <= 4
    for section in sections:
        line = section.summarize(facts)
        assert line
        assert "\n" not in line


def test_one_file_holds_a_tab_for_each_reader_and_no_script(facts):
    page = render_html_report(facts)
    assert re.findall(r'<div class="reader" id="(\w+)">', page) == list(READERS)
    assert re.findall(r'class="to-\w+" href="#(\w+)"', page) == list(READERS)
    assert "<script" not in page


def test_each_finding_leads_to_a_section_that_there_is():
    calls = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(findings)))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"
    ]
    ids = {call.args[4].value for call in calls if isinstance(call.args[4], ast.Constant)}
    assert len(calls) > 20
    assert ids <= SECTIONS.keys()


def test_every_section_has_a_reader_a_title_and_its_templates():
    for id_, section in SECTIONS.items():
        names = [f"{section.reader}_{part}.html.j2" for part in section.parts]
        assert section.reader in READERS
        assert section.title
        assert names, id_
        assert all((TEMPLATES / name).exists() for name in names), names


@pytest.mark.parametrize("reader", READERS)
def test_findings_are_at_most_five_and_the_most_severe_come_first(facts, reader):
    values = tuple(
        NewValue("creek", f"form {n}", "new", 40, 90, "creek-7", NOON + timedelta(days=1), "")
        for n in range(9)
    )
    busy = pending(replace(facts, drift=replace(facts.drift, new_values=values)), OPEN)
    findings = rank_findings(busy, reader)
    ranks = [SEVERITIES.index(item.severity) for item in findings]
    assert 1 < len(findings) <= 5
    assert ranks == sorted(ranks)
    assert all(item.section in SECTIONS for item in findings)


@pytest.mark.parametrize(
    ("count", "named"),
    [
        (3, "s2 · day."),
        (5, "s2 · day, s3 · day and s4 · day."),
        (6, "s2 · day, s3 · day, s4 · day, …"),
    ],
)
def test_a_list_that_is_cut_ends_without_a_full_stop(facts, count, named):
    """Seen: an ellipsis followed by a full stop."""
    evidence, stage = facts.evidence[0], facts.stages[0]
    sites = [f"s{number}" for number in range(count)]
    stages = tuple(replace(stage, site=site, intervals=(), widened=0) for site in sites)
    rows = tuple(replace(evidence, site=site, stage=SHADOW, closed_units=9) for site in sites)
    idle = replace(facts, stages=stages, evidence=rows, hindsights=(), events=(), naive_openings=())
    (found,) = [item for item in rank_findings(idle, "operator") if "more cell" in item.title]
    assert found.text == named


def test_a_narrowing_tells_delay_wrong_cases_and_the_price_of_auditing_little(facts):
    first = rank_findings(facts, "operator")[0]
    hindsight = min(facts.hindsights, key=lambda row: row.narrowed_at)
    assert first.title == "v1 was narrowed in creek · day, 2 times, last to shadow"
    assert f"{hindsight.cost.wrong_action.count} of them wrong" in first.text
    assert "On all blind decisions it trips after" in first.text
    assert re.match(r"\w{3} \d+ \w{3} \d\d:\d\d CET: ", first.text), "a time has its zone"


def test_the_price_of_auditing_names_what_each_count_is_of(facts):
    page = texts(render_html_report(facts, "engineer"))
    hindsight = facts.hindsights[0]
    assert f"{hindsight.all_bad_records.n} on all blind decisions; since the stage began" in page
    assert f"{hindsight.cost.known_cases} wrong since then" in page


@pytest.mark.parametrize("unjudged", [0, 7])
def test_cases_without_a_label_have_a_row_only_where_there_are_any(facts, unjudged):
    rows = [replace(row, unjudged=unjudged, bounds=(0.9, 0.95)) for row in facts.agreements]
    page = texts(render_html_report(replace(facts, agreements=tuple(rows)), "engineer"))
    assert ("… with the 7 others" in page) is bool(unjudged)
    assert "with the 0 others" not in page


def test_humans_of_a_replay_decided_audited_or_not(facts):
    (text,) = [t.text for t in build_tiles(facts, "operator") if "Humans" in t.text]
    assert "Humans in the history: 0\u00a0%" in text
    unlabelled = replace(
        facts, model_cost=replace(facts.model_cost, human_known_cases=facts.model_cost.cases - 9)
    )
    (text,) = [t.text for t in build_tiles(unlabelled, "operator") if "Humans" in t.text]
    assert "Humans in the history, on the cases with a human label: " in text
    live = replace(facts, identity=replace(facts.identity, simulated=False))
    (text,) = [t.text for t in build_tiles(live, "operator") if "Humans on" in t.text]
    assert "Humans on those of them with a blind decision" in text
    assert "audited or not" in texts(render_html_report(facts, "engineer"))


def test_units_with_a_decision_are_not_called_those_that_gates_count(facts):
    (funnel,) = facts.funnels
    fewer = replace(funnel, agreement=replace(funnel.agreement, n=300))
    tile = build_tiles(replace(facts, funnels=(fewer,)), "engineer")[0]
    assert "300 units have a human decision that can count" in tile.text
    assert "Gates count" not in tile.text


def test_the_calibration_tile_names_its_version_its_reference_and_that_cells_are_pooled(facts):
    row = next(item for item in facts.calibrations if item.ece is not None)
    proven = CoveragePoint(confidence=0.5, share=1.0, n=100, risk=0.04, at_most=0.06)
    humans = replace(row, version="v2", reference=HUMANS, largest_risk=0.08, proven=proven)
    others = tuple(replace(row, reference=name) for name in (HUMANS, OUTCOMES))
    found = replace(facts, calibrations=(*others, humans))
    text = build_tiles(found, "engineer")[-1].text
    assert text.startswith("v2 against humans: ")
    assert "Over all cells together, 100\u00a0% of the cases could be decided" in text
    assert text.endswith("single cells differ.")
    assert "v2 against humans" in SECTIONS["confidence"].summarize(found)


def test_a_finding_links_only_to_a_section_of_the_page(facts):
    page = render_html_report(facts, "operator")
    ids = set(re.findall(r' id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= ids


def test_the_operators_table_says_once_which_gate_its_bounds_are_of(facts):
    page = render_html_report(facts, "operator")
    assert page.count("a bound below the threshold doesn't question the present stage") == 1


def test_an_open_proposal_is_in_the_tile_the_findings_and_the_operations(facts):
    waiting = pending(facts, OPEN)
    (proposal,) = waiting.open_proposals
    assert (proposal.proposal, proposal.needed, proposal.until) == ("P-3", 2, "Mon 9 Mar")
    tile = build_tiles(waiting, "operator")[2]
    assert (tile.title, tile.value, tile.unit) == ("Waiting approvals", "1", "proposal")
    page = texts(render_html_report(waiting, "operator"))
    assert "1 proposal needs approvals: P-3" in page
    assert "Widening of creek · day to supervised needs 2 more approvals" in page
    assert not re.search(r"nothing waits|No proposal needs an approval", page)


def test_other_words_of_the_next_step_change_no_finding(facts):
    stopped = {"withheld": "stopped", "next_step": "stopped until a resume is approved"}
    for state in (OPEN, stopped):
        renamed = pending(facts, state | {"next_step": state["next_step"].upper()})
        for reader in READERS:
            findings = [rank_findings(each, reader) for each in (pending(facts, state), renamed)]
            first, second = ([(item.tag, item.title) for item in items] for items in findings)
            assert first == second
        assert {"Due", "Stopped"} & {item.tag for item in rank_findings(renamed, "operator")}


def test_without_a_proposal_the_page_says_so_everywhere(facts):
    page = texts(render_html_report(facts, "operator"))
    assert page.count("No proposal needs an approval.") == 3
    assert build_tiles(facts, "operator")[2].value == "0"


def test_narrowings_are_those_of_the_version_that_had_them(facts):
    """Seen: two narrowings of v1 beside v2, which had none."""
    day, *_ = facts.stages
    newer = replace(facts.evidence[0], version="v2", acting=True)
    older = replace(facts.evidence[0], acting=False)
    cells = replace(facts, evidence=(older, newer, *facts.evidence[1:]))
    row = next(build_cell_rows(cells))
    assert day.narrowed == 2
    assert (row.version, row.narrowings) == ("v2", ("v1 down 2×",))
    page = render_html_report(cells, "operator")
    assert "v1 down 2×" in page
    assert '<th scope="row" class="nowrap">creek · day, v2</th>' in page


@pytest.mark.parametrize(("widened", "start"), [(1, "In shadow on "), (0, "Nothing was")])
def test_the_headline_names_the_instant_that_it_is_true_for(facts, widened, start):
    at = facts.identity.last + timedelta(days=1)
    cells = [replace(cell, widened=0, intervals=()) for cell in facts.stages]
    later = replace(
        facts,
        identity=replace(facts.identity, last=at),
        stages=facts.stages if widened else tuple(cells),
    )
    (title,) = re.findall("<title>(.*)</title>", render_html_report(later, "operator"))
    assert title.startswith(f"bear-alarm: {start}")
    assert "Sun 8 Mar 2026 19:00 CET" in title


def test_each_event_with_figures_names_the_version_that_they_are_of(facts):
    events = [event for event in facts.events if event.version and event.kind != "Approved"]
    assert "IncidentOpened" in {event.kind for event in events}
    assert not [event for event in events if event.version not in event.text]


def test_a_bound_is_rounded_as_in_the_console(facts):
    """Seen: at least 95.2 % here and at least 95.1 % in the console for the same counts."""
    first, *rest = facts.evidence
    (path, *_) = first.path
    near = replace(path, bound=(*path.bound[:-1], 0.95163), threshold=0.95, measure="agreement")
    row = next(build_cell_rows(replace(facts, evidence=(replace(first, path=(near,)), *rest))))
    assert row.bound == f"≥ {format_share_bound(0.95163, 0.95)}" == "≥ 95.1\xa0%"


def test_a_bound_just_below_its_threshold_never_reads_as_met(facts):
    first, *rest = facts.evidence
    (path, *_) = first.path
    below = replace(path, bound=(*path.bound[:-1], 0.94996), threshold=0.95, measure="agreement")
    row = next(build_cell_rows(replace(facts, evidence=(replace(first, path=(below,)), *rest))))
    assert row.bound == "≥ 94.9\xa0%"


@pytest.mark.parametrize("reader", READERS)
def test_pages_use_the_words_of_the_field(facts, reader):
    first, *rest = facts.evidence
    # the words of funnels and events have tests of their own
    own = replace(facts, funnels=(), events=())
    named = replace(own, evidence=(replace(first, **OPEN), *rest))
    assert PRIVATE_WORDS.findall(texts(render_html_report(named, reader))) == []


def test_cells_carry_the_name_of_their_column_and_matrices_do_not():
    table = (
        '<table class="stack"><thead><tr><th>Cell</th><th>Units <b>x</b></th></tr></thead>'
        '<tbody><tr><th scope="row">a</th><td class="n">3</td></tr></tbody></table>'
    )
    assert '<td data-label="Units x" class="n">3</td>' in label_cells(table)
    matrix = table.replace('class="stack"', 'class="matrix"')
    assert label_cells(matrix) == matrix


def test_decisions_that_are_no_evidence_never_read_as_zero_agreement(replay_of, case):
    seen = [
        case(f"c{n}", at=NOON + timedelta(hours=n), human="bear", model={"v1": "bear"},
             exposure="unknown")
        for n in range(30)
    ]  # fmt: skip
    facts = compute_report_facts(replay_of(seen))
    held = [item.text for item in rank_findings(facts, "operator") if "in shadow" in item.title]
    assert held
    assert all("no decision counts as evidence yet" in text for text in held)
    assert not any("agreement 0" in text for text in held)


def test_a_cell_with_an_open_proposal_is_due_and_not_held(facts):
    """Seen: a cell listed twice, as due and as held."""
    shadow = {(cell.site, cell.window) for cell in facts.stages if not cell.was_above_shadow}
    held = [
        item for item in facts.evidence if (item.site, item.window) in shadow and item.closed_units
    ]
    proposed = tuple(
        replace(item, proposal=replace(OPEN["proposal"], site=item.site, window=item.window))
        for item in held[:1]
    )
    for evidence, tag in ((held, "Held"), (proposed, "Due")):
        found = rank_findings(replace(facts, evidence=tuple(evidence)), "operator")
        tags = {item.tag for item in found} & {"Held", "Due"}
        assert tags == {tag}


def test_slices_of_two_versions_share_one_error_rate_and_count_once(facts):
    (search,) = facts.slice_searches
    two = replace(facts, slice_searches=(search, replace(search, version="v2")))
    tile = next(tile for tile in build_tiles(two, "engineer") if "Slices" in tile.title)
    assert tile.text.startswith(f"{search.tested_slices} slices")
    assert SECTIONS["slices"].summarize(two).startswith(f"{search.tested_slices} compared")


def test_an_interval_from_near_zero_is_as_precise_as_its_share(facts):
    wrong = replace(compute_share(1, 500), low=4e-7)
    price = replace(facts.model_cost, cases=500, wrong_action=wrong)
    tile = build_tiles(replace(facts, model_cost=price), "operator")[3]
    assert tile.unit.replace("\N{NO-BREAK SPACE}", " ").startswith("0.00 % to 1.")


@pytest.mark.parametrize(
    ("disagreeing", "need"),
    [
        (8, "40 of 48 (83.3 %), about 1,100 more decisions"),
        (20, "; the gate needs agreement at least 80"),
    ],
)
def test_an_unmet_condition_within_its_threshold_needs_more_evidence(
    replay_of, case, disagreeing, need
):
    cases = [
        case(f"c{n}", at=NOON + timedelta(days=n // 12, minutes=10 * (n % 12)), human="bear",
             model={"v1": "no-bear" if n < disagreeing else "bear"})
        for n in range(48)
    ]  # fmt: skip
    facts = compute_report_facts(replay_of(cases))
    held = [item.text for item in rank_findings(facts, "operator") if "in shadow" in item.title]
    results = [line for line in describe_results(facts) if "stayed in shadow" in line]
    assert held
    assert results
    texts = [text.replace("\N{NO-BREAK SPACE}", " ") for text in held + results]
    assert all(need in text for text in texts)


def test_stages_that_a_suspension_moved_are_no_widenings_and_narrowings(facts):
    """Seen: 8 widenings on the operator's page and 6 on the engineer's, of one history."""
    kinds = [event.kind for event in facts.events]
    moved = tuple(replace(cell, widened=0, narrowed=0) for cell in facts.stages[1:])
    first = facts.stages[0]
    known = replace(first, widened=kinds.count("Widened"), narrowed=kinds.count("Narrowed"))
    plain = describe_stage_changes(replace(facts, stages=(known, *moved)))
    assert plain == f"{known.widened} widenings, {known.narrowed} narrowings"
    suspended = replace(known, widened=known.widened + 2, narrowed=known.narrowed + 2)
    text = describe_stage_changes(replace(facts, stages=(suspended, *moved)))
    assert text.startswith(f"{known.widened + 2} stage changes up, {known.narrowed + 2} down, susp")
