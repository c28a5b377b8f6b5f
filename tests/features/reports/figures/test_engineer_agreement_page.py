"""The engineer's page where there is something to show of agreement."""

import re
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser

import numpy as np
import pytest

from rollout.engine.records.records import BaselineCount
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.kernel.policy_files.reader import parse_policy
from tests.page_text import collapse_space

POLICY = """
rollout: page
timezone: UTC
levers: [{id: alarm, labels: [bear, no-bear], actions: {bear: sound, no-bear: nothing}}]
sites: [creek]
evidence: {unit: case, outside: unknown, grace: 1h, missing_at_most: 60%}
stages: [{id: autonomous, blind: 40%, audit: 30%}]
gates:
  - {to: autonomous, require: [{measure: agreement, at_least: 40%}], minimum: {units: 40, days: 1}}
guards: [{measure: agreement, at_least: 20%, false_alarm_every: 100000}]
tick: 1h
"""
FIVE = timedelta(minutes=5)


class Table(HTMLParser):
    """The tables of a page by their captions: rows of cells' texts."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.open, self.caption = {}, [], ""
        self.feed(text)

    def handle_starttag(self, tag, _):
        self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass
        if tag == "table":
            self.tables[self.caption.strip()] = self.rows

    def handle_data(self, text):
        if "caption" in self.open:
            self.caption += text
        elif {"td", "th"} & set(self.open):
            self.rows[-1][-1] += text

    def of(self, start):
        (found,) = [rows for caption, rows in self.tables.items() if caption.startswith(start)]
        return {row[0].strip(): row for row in found}


def plain(text):
    return collapse_space(text).replace("\u00a0", " ")


@pytest.fixture(scope="module")
def shown(replay_of, case):
    generator = np.random.default_rng(3)
    cases = []
    for n in range(900):
        right = "bear" if n % 4 == 0 else "no-bear"
        other = "no-bear" if right == "bear" else "bear"
        model = right if generator.random() < 0.8 else other
        saw = n % 3 == 0
        said = model if saw and generator.random() < 0.6 else right
        people = [("ana", said), ("bo", right)] if n % 9 == 1 else said
        cases.append(
            case(
                f"c{n:04}",
                case("x").at + n * FIVE,
                human=None if n % 50 == 49 else people,
                model={"v1": model},
                outcome=right if n % 2 else None,
                exposure="assisted" if saw else "blind",
            )
        )
    inputs = replay_of(cases, parse_policy(POLICY))
    since = case("x").at - timedelta(days=30)
    baselines = tuple(
        BaselineCount(
            "creek", "always", "alarm", action, n, since, since + timedelta(days=20), "root"
        )
        for action, n in (("sound", 300), ("nothing", 700))
    )
    facts = compute_report_facts(replace(inputs, baselines=baselines))
    return facts, Table(plain(render_html_report(facts, "engineer")))


@pytest.mark.simulation
def test_a_baseline_of_sets_says_that_a_case_counts_at_each_label(shown):
    facts, _ = shown
    of_sets = tuple(replace(change, has_sets=True) for change in facts.baseline_changes)
    pages = [
        plain(render_html_report(part, "engineer"))
        for part in (facts, replace(facts, baseline_changes=of_sets))
    ]
    found = ["A case counts at each label of its set" in page for page in pages]
    assert found == [False, True]


def test_the_ceiling_stands_beside_the_model(shown):
    facts, page = shown
    (ceiling,) = facts.reviewer_agreement.ceilings
    rows = page.of("The human ceiling")
    (caption,) = [text for text in page.tables if text.startswith("The human ceiling")]
    assert f"on the {ceiling.with_model.cases} of them that v1 answered" in caption
    assert "more than they agree" not in caption
    row = rows["Agreement, cases weighted equally"]
    assert row[1] == f"{100 * ceiling.reviewers.pairwise:.0f} %" == "100 %"
    assert row[3] == f"{100 * ceiling.with_model.pairwise:.1f} %"
    assert rows["Krippendorff's alpha"][1] == "1.000"
    assert rows["Krippendorff's alpha"][2] == "no data"
    assert set(rows) >= {"Gwet's AC1", "Fleiss' kappa", "With the majority"}


def test_anchoring_is_told_in_words(shown):
    facts, page = shown
    (found,) = facts.anchoring
    row = page.of("Blind and assisted agreement")[f"v1, alarm{found.cells} cell"]
    assert f"adopt it in about {100 * found.adopted.share:.0f} % of the conflicts" in row[-1]
    assert row[3].startswith("+")


def test_missing_verdicts_have_their_column(shown):
    _, page = shown
    rows = page.of("Label by label. Recall: of the cases with this human label")
    assert rows["Label"].count("If missing") == 2
    assert re.fullmatch(r"[\d.]+ to [\d.]+ %", rows["bear"][6])


def test_the_outcome_stands_apart(shown):
    facts, page = shown
    (found,) = facts.correctness
    row = page.of("Versions on all cases with a known truth")["v1, alarm"]
    assert row[1] == "the outcome"
    assert f"{found.model.count} of {found.model.n}" in row[2]
    assert "bear" in page.of("Recall: of the cases with this truth")


def test_draws_and_weights_have_their_tables(shown):
    facts, page = shown
    above = next(row for row in facts.audits.sampling if row.stage == "autonomous")
    row = page.of("By cell and stage: planned and actual")["creek · always"]
    assert row[1:4] == ["autonomous", str(above.cases), "58.0 %"]
    assert row[-1] == "no"
    (sampled,) = facts.audits.sampled
    row = page.of("Agreement of the sampled cases")["creek · always, v1"]
    assert row[2] == f"{100 * sampled.weighted.rate:.1f} %"
    assert row[4] == f"{sampled.weighted.effective:.0f}"


def test_the_hold_out_and_the_baseline_say_what_they_compare(shown):
    facts, page = shown
    assert page.of("alarm on autonomous: actions of the model")["sound"][1] == str(
        facts.hold_outs[0].actions[0].by_model
    )
    then = page.of("alarm, creek · always: blind human decisions")["sound"]
    assert then[1] == "30.0 %300"
    assert "vouched for by root" in " ".join(page.tables)


def test_the_range_with_the_unjudged_says_whose_answers_are_missing(shown):
    facts, page = shown
    (figures,) = facts.agreements
    row = page.of("v1 against human decisions")[f"… with the {figures.unjudged} others"]
    low, high = figures.bounds
    assert row[2] == f"{100 * low:.1f} to {100 * high:.1f} %"
    assert row[-1].startswith(f"whatever the {figures.unjudged} without one human label would have")


def test_kappa_and_ac1_have_their_effective_number_beside_the_cases(shown):
    facts, page = shown
    (figures,) = facts.agreements
    rows = page.of("v1 against human decisions")
    for name, figure in (("Cohen's kappa", figures.kappa), ("Gwet's AC1", figures.ac1)):
        assert rows[name][3:5] == [str(figure.n), f"{figure.effective:.0f}"]


def test_a_baseline_in_one_span_has_no_interval_and_says_why(shown):
    _, page = shown
    row = page.of("alarm, creek · always: blind human decisions")["sound"]
    assert row[3] == "no data"
    assert row[4] == row[5] == "too few days in the baseline (1): import its counts by day"


@pytest.mark.slow
def test_rare_labels_have_a_recall_instead_of_kappa(replay_of, case):
    cases = [
        case(f"c{n:03}", case("x").at + n * FIVE, human="bear" if n < 7 else "no-bear",
             model={"v1": "bear" if n < 6 else "no-bear"})
        for n in range(300)
    ]  # fmt: skip
    facts = compute_report_facts(replay_of(cases, parse_policy(POLICY)))
    (recall,) = (row.recall for row in facts.agreements[0].labels if row.label == "bear")
    assert (recall.count, recall.n) == (6, 7)
    rows = Table(plain(render_html_report(facts, "engineer"))).of("v1 against human decisions")
    for name, figure in (("Cohen's kappa", "kappa"), ("Gwet's AC1", "AC1")):
        assert rows[name][1] == ""
        assert rows[name][2] == f"too few for {figure} (6 of label bear)"
        assert rows[name][-1] == (
            f"recall instead: bear 85.7 % ({100 * recall.low:.1f} to {100 * recall.high:.1f} %)"
        )


@pytest.mark.slow
def test_too_few_units_say_so_where_the_interval_would_be(replay_of, case):
    cases = [
        case(f"c{n:03}", case("x").at + n * FIVE, human="bear" if n % 2 else "no-bear",
             model={"v1": "bear" if n % 2 else "no-bear"}, episode=f"e{n // 10}")
        for n in range(40)
    ]  # fmt: skip
    policy = parse_policy(POLICY.replace("unit: case", "unit: episode"))
    facts = compute_report_facts(replay_of(cases, policy))
    rows = Table(plain(render_html_report(facts, "engineer"))).of("v1 against human decisions")
    assert rows["Agreement"][1:3] == ["100 %", "too few units (4)"]
    assert rows["Cohen's kappa"][1:3] == ["1.000", "too few units (4)"]


@pytest.mark.slow
def test_nothing_known_is_said_and_is_no_zero(facts):
    text = plain(render_html_report(facts, "engineer"))
    assert "no baseline was imported" in text
    assert "No case has several blind decisions" in text
    assert "Anchoring" not in text
