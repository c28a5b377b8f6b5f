import re
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from rollout.engine.events import IncidentOpened
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.report_version import FigureChange
from rollout.features.reports.pages.html_report import render_html_report
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.policy_files.reader import parse_policy

VOID = {"meta", "br", "rect", "path", "line", "circle", "link", "img"}


class Page(HTMLParser):
    """What a page holds: tags with their attributes, headings, and whether all are closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.headings, self.unclosed = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), tuple(self.open)))

    def handle_endtag(self, tag):
        if self.open[-1] != tag:
            self.unclosed.append((tag, self.open[-1]))
        self.open.pop()

    def all(self, name):
        return [attrs for tag, attrs, _ in self.tags if tag == name]


@pytest.fixture(scope="module")
def text(facts):
    return render_html_report(facts)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_tag_is_closed(page):
    assert (page.unclosed, page.open) == ([], [])


def test_nothing_comes_from_outside(page, text):
    assert not page.all("script") + page.all("link") + page.all("img")
    assert not re.search(r"url\((?!#)|@import", text)
    addresses = set(re.findall(r"https?://[^\"' <]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}


def test_ids_are_there_once_and_are_found(page, text):
    ids = [attrs["id"] for _, attrs, _ in page.tags if "id" in attrs]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    named = {n for _, a, _ in page.tags for n in a.get("aria-labelledby", "").split()}
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | named
    used |= {a["href"][1:] for a in page.all("a")}
    assert used <= set(ids)


def test_headings_step_down_one_by_one(page):
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    steps = zip(page.headings, page.headings[1:], strict=False)
    assert all(after <= before + 1 for before, after in steps)


def test_tables_have_a_caption_and_their_heads_a_scope(page):
    inside = Counter(tag for tag, _, _ in page.tags)
    assert inside["caption"] == inside["table"] > 10
    assert all(head.get("scope") in {"col", "row"} for head in page.all("th"))


def test_charts_have_a_name_and_a_description(page, facts):
    drawn = [attrs for attrs in page.all("svg") if attrs.get("role") == "img"]
    assert len(drawn) >= 3
    names = {a["id"] for tag in ("title", "desc") for a in page.all(tag) if "id" in a}
    assert all(set(a["aria-labelledby"].split()) <= names for a in drawn)
    hidden = [attrs for attrs in page.all("svg") if attrs.get("aria-hidden") == "true"]
    groups = [attrs for attrs in page.all("svg") if attrs.get("role") == "group"]
    assert all(set(a["aria-labelledby"].split()) <= names for a in groups)
    assert len(groups) == 2 * len(facts.cell_timelines) > 0
    assert len(drawn) + len(hidden) + len(groups) == len(page.all("svg"))


def test_sites_that_never_moved_share_one_panel_of_the_map(text):
    assert ">creek</text>" in text
    assert ">1 site always in shadow</text>" in text
    assert ">meadow</text>" not in text


def test_each_row_of_evidence_names_the_attempt_whose_risk_it_needs(text):
    assert "attempt 3 of the year in this cell, risk" in text
    assert "attempt 1 of the year in this cell, risk" in text


def test_wide_tables_scroll_in_a_region_that_keys_reach(page):
    for tag, attrs, around in page.tags:
        if attrs.get("class") == "wide":
            assert (attrs["role"], attrs["tabindex"]) == ("region", "0")
            assert attrs["aria-label"]
        if tag == "table":
            assert "div" in around


def test_light_dark_paper_and_phone_are_thought_of(text):
    for query in ("prefers-color-scheme: dark", "@media print", "size: A4", "max-width"):
        assert query in text


def test_what_people_wrote_is_text_and_no_page(facts):
    row = replace(facts.divergences.top[0], human="<script>alert(1)</script>")
    evil = replace(facts, divergences=replace(facts.divergences, top=(row,)))
    shown = render_html_report(evil)
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_without_charts_one_line_says_how_to_get_them(facts, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    text = render_html_report(facts)
    assert "pip install &#39;.[charts]&#39; in the project&#39;s folder" in text
    drawn = [a for a in Page(text).all("svg") if a.get("role") == "img"]
    assert {a["aria-labelledby"].partition("-")[0] for a in drawn} == {"det1", "det2"}
    assert text.count("<table") == render_html_report(facts).count("<table")


def test_no_data_never_looks_like_zero(replay_of, case):
    lone = compute_report_facts(replay_of([case("a", human="bear", model={"v1": "bear"})]))
    assert '<span class="none">no data</span>' in render_html_report(lone)


def test_a_history_without_any_pair_still_has_a_report(replay_of, case):
    facts = compute_report_facts(replay_of([case("a", model={"v1": "bear"})]))
    assert "No case has one human decision to compare with." in render_html_report(facts)


@pytest.mark.slow
def test_twelve_cells_over_six_weeks_stay_below_610_kb(replay_of, case):
    policy = parse_policy(
        """
rollout: many
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear]}]
sites: [a, b, c, d, e, f]
windows: [{id: day, hours: "06:00-18:00"}, {id: night, hours: 24/7}]
evidence: {unit: case, grace: 1h}
gates:
  - {to: supervised, require: [{measure: agreement, at_least: 90%}], minimum: {units: 60}}
  - {to: autonomous, require: [{measure: cost, at_most: 0.1}], minimum: {units: 20}}
tick: 1h
"""
    )
    wrong = np.random.default_rng(1).random((6, 42, 24)) < 0.03
    cases = [
        case(
            f"{site}-{day}-{hour}", case("x").at + timedelta(days=day, hours=hour), site,
            human=[(f"{site}{hour % 3}", "bear" if hour % 5 else "no-bear")],
            model={"v1": "bear" if bool(hour % 5) != wrong[nth, day, hour] else "no-bear"},
        )
        for nth, site in enumerate("abcdef")
        for day in range(42)
        for hour in range(24)
    ]  # fmt: skip
    facts = compute_report_facts(replay_of(cases, policy))
    assert sum(cell.stage == "autonomous" for cell in facts.stages) > 6
    assert len(render_html_report(facts).encode()) < 610_000


def test_a_report_of_a_service_says_whether_it_may_still_change_and_what_did(facts):
    own = replace(
        facts.report_version,
        live=True,
        state="provisional",
        uncounted_units=3,
        withheld_cases=1,
        version=2,
        due=facts.identity.last,
        changed=(FigureChange("price.cases", "1", None),),
    )
    page = render_html_report(replace(facts, report_version=own))
    assert "<strong>PROVISIONAL</strong>" in page
    assert "1 case is withheld because a blind review is still possible" in page
    assert "Changes since version 1: 1 figure" in page
    assert "price.cases" in page
    assert "PROVISIONAL" not in render_html_report(facts)


def test_an_alarm_stands_in_words(replay_of, case, bears):
    over = replace(bears.guards[0], over=timedelta(hours=4))
    said = IncidentOpened(
        at=case("x").at,
        by="engine",
        incident="I-1",
        kind="alarm",
        guard=over.id,
        cell=bears.cells[0],
        version="v1",
        alarms=(StoredAlarm(over.condition, over.over, 9, 40),),
        effect="reported",
    )
    inputs = replay_of([case("a", human="bear", model={"v1": "bear"})])
    text = render_html_report(compute_report_facts(replace(inputs, events=(*inputs.events, said))))
    assert ": 9 of 40 blind decisions disagree" in text


def test_terms_of_planted_cases_stand_once_in_the_table_of_evidence(facts):
    (item, *others) = [item for item in facts.evidence if item.gate is not None]
    name = "recall of bear of planted cases at least 90 %"
    planted = replace(item.gate.conditions[0], condition=name, is_planted=True)
    gate = replace(item.gate, conditions=(planted,) * 3)
    page = render_html_report(replace(facts, evidence=(replace(item, gate=gate), *others)))
    assert page.count("of planted cases at least") >= 3
    assert page.count("missing decisions count against it") == 1
    assert "missing decisions count" not in render_html_report(facts)


def test_the_operator_sees_the_largest_changes_first_and_the_others_on_demand(facts):
    (row, *_) = facts.actions
    actions = tuple(
        replace(row, action=f"act-{n}", change=replace(row.change, per_100=float(n)))
        for n in range(20)
    )
    page = render_html_report(replace(facts, actions=actions), "operator")
    section = page[page.index('id="actions"') :]
    open_part, _, folded_part = section.partition("12 smaller changes")
    shown = re.findall(r">(act-\d+)<", open_part)
    assert shown[-8:] == [f"act-{n}" for n in range(19, 11, -1)]
    assert f">act-{0}<" in folded_part


def test_the_evidence_of_a_cell_names_its_missing_units_once(facts):
    row = max((item for item in facts.evidence if item.gate), key=lambda item: item.decided_units)
    others = [replace(item, losses={}) for item in facts.evidence if item is not row]
    lost = replace(row, losses={"case received late": 20})
    counted = row.closed_units - 20
    line = f"of {row.closed_units} units {counted} counted, 20 late"
    assert render_html_report(replace(facts, evidence=(*others, lost))).count(line) == 1
    acting = replace(facts, evidence=(*others, replace(lost, gate=None)))
    assert render_html_report(acting).count(line) == 1
    whole = replace(facts, evidence=(*others, replace(row, losses={})))
    assert "units counted" not in render_html_report(whole)
