"""Ways to open cells, compared over the same cases; and floors that open nothing, in words."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from markupsafe import escape
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.files.files import RecordPaths
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import (
    add_whole_cell_replay,
    build_replay_inputs,
    replay_files,
    replay_records,
)
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.summary import describe_held_floors
from rollout.features.reports.pages.text_report import render_text_report
from rollout.kernel.policy.cell_evidence import list_floors

POLICY = """
rollout: mail
timezone: UTC
levers: [{id: desk, labels: [claims, sales]}]
sites: [lisbon, oporto]
stages: [{id: autonomous, audit: 50%, lasts: 3650d}]
evidence: {unit: case, grace: 1m, outside: blind, confidence_floors: [0%, 60%, 90%]}
gates:
  - to: autonomous
    require: [{measure: agreement, at_least: 90%}]
    risk: 10%
    minimum: {units: 50, days: 0}
    approvals: [operator]
tick: 15m
"""
START = datetime(2027, 1, 4, tzinfo=UTC)
NO_BREAK = "\N{NO-BREAK SPACE}%"
CASES = 1600
NEW_FROM = 1400  # from here on v2 answers too


def list_letters():
    """Yield key, site, place in time, confidence, and whether v1 is right.

    In Lisbon v1 is right where it is sure, and in one letter of two where it isn't. In Oporto it is
    wrong in each fifth letter, and in each third of which it is surest.
    """
    for i in range(CASES):
        confidence = (0.4, 0.7, 0.7, 0.95)[i % 4]
        yield f"lis-{i}", "lisbon", i, confidence, confidence > 0.5 or i % 8 == 0
        wrong_every = 3 if confidence > 0.9 else 5
        yield f"opo-{i}", "oporto", i, confidence, (i // 4) % wrong_every != 0


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mail")
    cases, predictions, decisions, outcomes = [], [], [], []
    for key, site, i, confidence, is_right in list_letters():
        at = START + timedelta(minutes=3 * i)
        cases.append((key, site, at.isoformat()))
        predictions.append((key, "v1", "claims" if is_right else "sales", confidence))
        if i >= NEW_FROM:
            predictions.append((key, "v2", "sales", 0.99))
        decisions.append((key, "ann", "claims", (at + timedelta(seconds=5)).isoformat()))
        outcomes.append((key, "claims"))
    paths = RecordPaths(*(folder / f"{name}.csv" for name in ("p", "d", "c", "o")))
    for path, rows, columns in (
        (paths.cases, cases, ("case_key", "site", "occurred_at")),
        (paths.predictions, predictions, ("case_key", "model_version", "label", "confidence")),
        (paths.decisions, decisions, ("case_key", "reviewer", "label", "decided_at")),
        (paths.outcomes, outcomes, ("case_key", "label")),
    ):
        pl.DataFrame(rows, columns, orient="row").write_csv(path)
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    options = ReplayOptions(approval_delay=timedelta(0))
    return replay_files(ReplayRequest(folder / "policy.yaml", paths, options=options))


@pytest.fixture(scope="module")
def floor_facts(files):
    return compute_report_facts(add_whole_cell_replay(build_replay_inputs(files), files))


def count_model_letters(files):
    """Recount from the stages: the letters that the model decides, those wrong, those audited."""
    decided = wrong = 0
    for _, site, i, confidence, is_right in list_letters():
        at = START + timedelta(minutes=3 * i)
        slot = np.array([int(at.timestamp()) // 900])
        (history,) = (h for cell, h in files.result.stage_histories.items() if cell.site == site)
        is_open, floor = history.find_levels(slot)[0], history.find_floors(slot)[0]
        acts = bool(is_open and confidence >= floor)
        decided += acts
        wrong += acts and not is_right
    return decided, wrong


def get_method(facts, kind, floor=""):
    (row,) = (row for row in facts.methods if (row.kind, row.floor) == (kind, floor))
    return row


@pytest.mark.slow
def test_each_way_is_over_the_same_cases(floor_facts):
    kinds = [(row.kind, row.floor) for row in floor_facts.methods]
    thresholds = [("plain threshold", "0.6"), ("plain threshold", "0.9")]
    assert kinds == [("floors", ""), ("whole cell", ""), *thresholds]
    for row in floor_facts.methods:
        assert row.human_decisions + row.model_cost.cases - row.model_cost.audited == 2 * CASES


def test_with_floors_the_model_decides_what_its_floors_let_through(files, floor_facts):
    row = get_method(floor_facts, "floors")
    decided, wrong = count_model_letters(files)
    assert (row.model_cost.cases, row.model_cost.wrong_action.count) == (decided, wrong)
    assert decided > 500
    assert 0.4 * decided < row.model_cost.audited < 0.6 * decided


def test_the_whole_cell_stays_closed_where_unsure_letters_spoil_it(floor_facts):
    row = get_method(floor_facts, "whole cell")
    assert (row.model_cost.cases, row.human_decisions) == (0, 2 * CASES)


@pytest.mark.parametrize("floor", [0.6, 0.9])
def test_a_plain_threshold_takes_the_newest_versions_sure_answers(floor_facts, floor):
    row = get_method(floor_facts, "plain threshold", str(floor))
    old = [letter for letter in list_letters() if letter[2] < NEW_FROM and letter[3] >= floor]
    new = 2 * (CASES - NEW_FROM)  # v2 is sure of each letter, and wrong in each
    assert row.model_cost.cases == len(old) + new
    assert row.model_cost.wrong_action.count == sum(not letter[4] for letter in old) + new
    assert row.model_cost.audited == 0


@pytest.mark.slow
def test_a_policy_without_several_floors_is_compared_with_nothing(files):
    evidence = replace(files.policy.evidence, confidence_floors=())
    single = replay_records(files.request, replace(files.policy, evidence=evidence), files.records)
    inputs = build_replay_inputs(single)
    assert add_whole_cell_replay(inputs, single) is inputs
    assert compute_report_facts(inputs).methods == ()


@pytest.mark.slow
def test_terminal_and_page_have_the_ways(floor_facts):
    text = " ".join(render_text_report(floor_facts).split())
    row = get_method(floor_facts, "floors")
    assert (
        f"With a gate for each confidence floor the model decides {row.model_cost.cases:,} cases,"
        f" {row.model_cost.wrong_action.count:,} wrong; {row.human_decisions:,} human decisions."
    ) in text
    assert "With one gate for the whole cell the model decides 0 cases; 3,200 human" in text
    page = render_html_report(floor_facts)
    assert "A gate for each confidence floor</th>" in page
    assert "A plain threshold of confidence 0.9, without evidence</th>" in page
    assert "; other ways to open cells are compared</span>" in page


def test_a_cell_that_no_floor_opens_says_how_its_bands_agree(files, floor_facts):
    lines = [line for line in describe_held_floors(floor_facts) if ": v1 met no" in line]
    (line,) = lines
    assert line.startswith("oporto")
    (evidence,) = (
        item for item in floor_facts.evidence if (item.site, item.version) == ("oporto", "v1")
    )
    for floor, row in zip(list_floors(files.policy.evidence), evidence.floors, strict=True):
        letters = [x for x in list_letters() if x[1] == "oporto" and x[3] >= floor]
        agree = sum(x[4] for x in letters)
        assert (row.reached.count, row.reached.n, row.undecided_units) == (agree, len(letters), 0)
        assert f"{agree / len(letters):.1%} of {len(letters):,}".replace("%", NO_BREAK) in line
    assert "The version's confidence says little there: even cases of confidence 0.9" in line
    assert f"agreement falls from 80.0{NO_BREAK} to 66.5{NO_BREAK} at 0.9" in line
    assert f"<p>{escape(line)}</p>" in render_html_report(floor_facts)


@pytest.mark.slow
def test_the_command_replays_with_one_gate_too(files):
    paths = files.request.sources
    arguments = ["--predictions", paths.predictions, "--decisions", paths.decisions]
    arguments += ["--cases", paths.cases, "--outcomes", paths.outcomes, "--json"]
    done = CliRunner().invoke(app, ["replay", str(files.request.policy), *map(str, arguments)])
    assert done.exit_code == 0, done.output
    methods = json.loads(done.stdout)["methods"]
    assert [row["kind"] for row in methods[:2]] == ["floors", "whole cell"]
    assert methods[1]["model_cost"]["cases"] == 0 < methods[0]["model_cost"]["cases"]
