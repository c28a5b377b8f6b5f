"""Where reviews help most: figures of small histories by hand, and against replayed openings."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
import scipy

from rollout.engine.events import ProposalRaised
from rollout.engine.evidence.unit_arrays import CellUnitArrays
from rollout.engine.files.files import RecordPaths
from rollout.engine.files.questions import FileChoices
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures import review_plan
from rollout.features.reports.figures.review_plan import (
    CellReviewPlan,
    compute_review_plan,
    count_decisions_per_unit,
)
from rollout.features.reports.inputs.evidence_inputs import build_state_periods
from rollout.features.reports.pages.text_report import build_plan_row, format_review_plan
from rollout.kernel.statistics.forecast import forecast_opening

POLICY = """
rollout: ramps
timezone: UTC
levers: [{{id: damage, labels: [damaged, sound]}}]
sites: [{sites}]
stages: [{{id: supervised, blind: 50%, lasts: 3650d}}]
evidence: {{unit: case, grace: 1m, outside: blind, releases: 1}}
gates:
  - to: supervised
    require: [{require}]
    risk: 5%
    minimum: {{units: {units}, days: 0, reviewers: 1}}
    approvals: [operator]
guards: [{{measure: agreement, at_least: 80%, then: one-stage, false_alarm_every: 10000}}]
tick: 15m
"""
AGREEMENT = "{measure: agreement, at_least: 95%}"
START = datetime(2027, 1, 4, tzinfo=UTC)


def replay(
    folder,
    agrees_by_site,
    *,
    require=AGREEMENT,
    units=20,
    labels=None,
    spacing=5,
):
    """Replay cases of a few sites, `spacing` a slot; each agrees or not, in order."""
    predicted, decided = [], []
    for site, agrees in agrees_by_site.items():
        for i, agrees_here in enumerate(agrees):
            at = START + timedelta(minutes=15 * (i // spacing), seconds=20 * (i % spacing))
            human = "sound" if labels is None else labels[i]
            other = {"sound": "damaged", "damaged": "sound"}[human]
            model = human if agrees_here else other
            predicted.append((f"{site}-{i}", site, at.isoformat(), "v1", model))
            if human is not None:
                decided.append(
                    (f"{site}-{i}", "ann", human, (at + timedelta(seconds=5)).isoformat())
                )
    paths = RecordPaths(folder / "predictions.csv", folder / "decisions.csv")
    columns = ("case_key", "site", "occurred_at", "model_version", "label")
    pl.DataFrame(predicted, columns, orient="row").write_csv(paths.predictions)
    columns = ("case_key", "reviewer", "label", "decided_at")
    pl.DataFrame(decided, columns, orient="row").write_csv(paths.decisions)
    sites = ", ".join(agrees_by_site)
    text = POLICY.format(sites=sites, require=require, units=units)
    (folder / "policy.yaml").write_text(text, encoding="utf-8")
    request = ReplayRequest(
        folder / "policy.yaml",
        paths,
        options=ReplayOptions(approval_delay=None),
        choices=FileChoices(equal_sides=True),
    )
    return replay_files(request)


def plan(files, decisions=1000):
    inputs = build_replay_inputs(files)
    return compute_review_plan(inputs, build_state_periods(inputs), decisions)


def agreeing(agreed, disagreed=0):
    """Return that many agreements, the others spread before them."""
    return [False] * disagreed + [True] * agreed


@pytest.mark.slow
def test_cells_come_in_the_cheapest_order_and_hopeless_ones_last(tmp_path):
    sites = {
        "slow": agreeing(58, 2),
        "bad": agreeing(60, 40),
        "quick": agreeing(60),
        "fresh": agreeing(1),
    }
    made = plan(replay(tmp_path, sites), decisions=100)
    assert [row.site for row in made.cells] == ["quick", "fresh", "slow", "bad"]
    quick, fresh, slow, bad = made.cells
    outlooks = ("on course", "uncertain", "on course", "hopeless")
    assert tuple(row.outlook for row in made.cells) == outlooks
    assert bad.ever_chance == 0.0
    assert bad.planned == 0
    assert (quick.judged, quick.to, quick.stage) == (60, "supervised", "shadow")
    # 5 % · 80 % for the first attempt of one planned: 78 agreements open the gate, 60 are there
    assert 18 <= quick.decisions_p50 <= 22
    assert quick.planned == quick.cheapest_decisions
    assert sum(row.planned for row in made.cells) + made.unplanned == 100
    assert made.expected_openings == pytest.approx(sum(r.opening_chance for r in made.cells))
    assert quick.reason == "agreement at least 95 %"
    assert slow.decisions_per_opening > fresh.decisions_per_opening > quick.decisions_per_opening


def test_without_a_decision_there_are_no_figures(tmp_path):
    files = replay(tmp_path, {"lab": [True] * 40, "yard": [True]})
    inputs = build_replay_inputs(files)
    empty = {
        key: replace(view, rows=CellUnitArrays()) for key, view in inputs.evidence_views.items()
    }
    inputs = replace(inputs, evidence_views=empty)
    made = compute_review_plan(inputs, build_state_periods(inputs), 1000)
    assert {row.outlook for row in made.cells} == {"no data"}
    assert made.cells[0].reason == "no decided unit"
    assert (
        made.cells[0].decisions_p50
        is made.cells[0].ever_chance
        is made.cells[0].decisions_per_opening
        is None
    )
    assert made.unplanned == 1000


def test_a_label_without_a_record_has_no_figures(tmp_path):
    recall = "{measure: recall, label: damaged, at_least: 90%}"
    made = plan(replay(tmp_path, {"lab": [True] * 60}, require=recall))
    assert made.cells[0].outlook == "no data"
    assert made.cells[0].reason == "no record of recall of damaged at least 90 %"


def test_a_rare_label_needs_as_many_decisions_as_it_is_rare(tmp_path):
    recall = "{measure: recall, label: damaged, at_least: 90%}"
    labels = ["damaged" if i % 10 == 0 else "sound" for i in range(300)]
    row = plan(replay(tmp_path, {"lab": [True] * 300}, require=recall, labels=labels)).cells[0]
    # all of 30 agree; 39 open the gate at 4 % of risk
    assert 70 <= row.decisions_p50 <= 140
    planted = row.changes[0]
    assert (planted.setting, planted.label, planted.planted) == ("planted cases", "damaged", 39)
    assert planted.decisions == 0
    text = build_plan_row(row).changes[0]
    assert "39 planted cases if the model gets each right, and no further decision" in text


def test_a_minimum_counts_where_the_conditions_need_less(tmp_path):
    row = plan(replay(tmp_path, {"lab": agreeing(100)}, units=500)).cells[0]
    assert row.decisions_p50 == row.decisions_p90 == 400
    assert row.reason == "100 of 500 decided units"


def test_a_gate_that_is_met_needs_no_review(tmp_path):
    made = plan(replay(tmp_path, {"lab": agreeing(200)}))
    assert (made.cells[0].outlook, made.cells[0].decisions_p50, made.cells[0].planned) == (
        "met",
        0,
        0,
    )
    assert made.expected_openings == 1.0


def test_second_decisions_count_as_decisions(tmp_path):
    rules = replay(tmp_path, {"lab": agreeing(30)}).policy.evidence
    assert count_decisions_per_unit(rules) == 1
    assert count_decisions_per_unit(replace(rules, second_verdict=0.25)) == 1.25
    assert count_decisions_per_unit(replace(rules, verdicts=2)) == 2


def test_the_text_names_each_cell_once_and_says_how_figures_are_made(tmp_path):
    made = plan(replay(tmp_path, {"lab": agreeing(60), "yard": agreeing(9, 9)}))
    text = format_review_plan(made)
    for row in made.cells:  # in the table and with its reason
        assert text.count(f"{row.site} · {row.window} (v1)") == 2
    assert "hopeless" in text
    assert "400 simulated runs" in text
    assert "Stops, suspensions, freezes, waves and approvals are not" in " ".join(text.split())


QUICK = CellReviewPlan(
    "creek", "day", "v1", "shadow", "supervised", "", "on course", "", 5, 4.0, 30, 90, 7.5, 0.995
)


@pytest.mark.parametrize(
    ("changes", "outlook", "days", "ever"),
    [
        ({}, "on course", "8", "over 99 %"),
        ({"days": 2_500.0, "ever_chance": 1.0}, "over a year", "2,500", "100 %"),
        ({"outlook": "hopeless", "ever_chance": 0.004}, "hopeless", "8", "under 1 %"),
        ({"outlook": "uncertain", "ever_chance": 0.31}, "uncertain", "8", "31 %"),
        ({"outlook": "met"}, "gate is met", "–", "–"),
        ({"days": None}, "on course", "–", "over 99 %"),
    ],
)
def test_a_row_gives_percents_alike_and_calls_no_slow_cell_on_course(changes, outlook, days, ever):
    row = build_plan_row(replace(QUICK, **changes))
    assert (row.cells[1], row.cells[4], row.cells[5].replace("\xa0", " ")) == (outlook, days, ever)


@pytest.mark.simulation
def test_openings_of_replays_come_as_the_plan_says(tmp_path):
    """After 98 of 100 agreements: what is left is drawn from the posterior, and replayed."""
    start = agreeing(98, 2)
    made = plan(replay(tmp_path, {"lab": start})).cells[0]
    rng = np.random.default_rng(1)
    rates = scipy.special.betaincinv(98.5, 2.5, (np.arange(60) + 0.5) / 60)
    further = []
    for rate in rates:
        later = (rng.random(1500) < rate).tolist()
        events = replay(tmp_path, {"lab": start + later}).result.events
        raised = next((event for event in events if isinstance(event, ProposalRaised)), None)
        further.append(np.inf if raised is None else _count_units(raised) - 100)
    further = np.array(further)
    assert (further <= made.decisions_p50).mean() == pytest.approx(0.5, abs=0.13)
    assert np.median(further) == pytest.approx(made.decisions_p50, rel=0.35)
    planned = plan(replay(tmp_path, {"lab": start}), decisions=made.cheapest_decisions).cells[0]
    assert (further <= made.cheapest_decisions).mean() == pytest.approx(
        planned.opening_chance, abs=0.13
    )


@pytest.mark.simulation
def test_at_a_true_agreement_of_98_percent_replays_open_after_the_expected_decisions(tmp_path):
    rng = np.random.default_rng(2)
    further = []
    for _ in range(40):
        events = replay(tmp_path, {"lab": (rng.random(1500) < 0.98).tolist()}).result.events
        raised = next((event for event in events if isinstance(event, ProposalRaised)), None)
        further.append(1500 if raised is None else _count_units(raised))
    exact = forecast_opening(0.98, at_least=0.95, alpha=0.04).mean
    assert np.mean(further) == pytest.approx(exact, rel=0.2)


def _count_units(raised):
    """Return the decided units that a proposal's evidence counts."""
    return sum(raised.readings[0].counts)


# Cost of a plan


@pytest.mark.parametrize("require", [AGREEMENT, "{measure: cost, at_most: 0.05}"])
def test_a_plan_of_the_same_counts_simulates_nothing_again(tmp_path, monkeypatch, require):
    files = replay(tmp_path, {"lab": agreeing(83, 4)}, require=require)
    first = plan(files)
    assert first.cells[0].outlook != "no data"
    monkeypatch.setattr(review_plan, "simulate_openings", None)
    assert plan(files, decisions=500).cells[0].decisions_p50 == first.cells[0].decisions_p50
