"""Real records of a model used outside its region: the figures of ../shared/data/README.md.

They were computed by two independent routes before this project existed. The model agrees with
people on 67 % of the pictures, so nothing may ever be widened.
"""

import json
from pathlib import Path

import krippendorff
import numpy as np
import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.inputs.divergences import render_divergences_csv
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.json_report import render_json_report
from rollout.features.reports.pages.summary import describe_results, format_headline

ROOT = Path(__file__).parents[2]
RECORDS = ROOT.parent / "shared/data/camera-traps"

is_absent = pytest.mark.skipif(
    not RECORDS.exists(), reason=f"the records are not on this machine: {RECORDS}"
)
pytestmark = [pytest.mark.slow, is_absent]  # a whole history is replayed before the first one

LABELS = """
human 7345 4727 4473 0.946266 0.608986
rider 1200 1021 945 0.925563 0.787500
roe deer 1100 858 742 0.864802 0.674545
vehicle 991 1848 964 0.521645 0.972755
fox 920 1547 831 0.537169 0.903261
dog 870 2020 705 0.349010 0.810345
wild boar 643 512 483 0.943359 0.751166
badger 576 457 407 0.890591 0.706597
"""
SITES = """
32.1 3072 2187 0.711914 0.630494
36.2 3007 1884 0.626538 0.275203
46.2 2161 1551 0.717723 0.656646
59.1 2128 1090 0.512218 0.435365
46.1 1088 904 0.830882 0.790611
15.2 1003 726 0.723829 0.610962
22.2 897 743 0.828317 0.772698
22.1 615 346 0.562602 0.478905
44.1 468 327 0.698718 0.568624
36.1 334 163 0.488024 0.421062
15.1 56 37 0.660714 0.612527
"""


@pytest.fixture(scope="module")
def inputs():
    sources = RecordPaths(RECORDS / "predictions.csv", RECORDS / "decisions.csv")
    return build_replay_inputs(
        replay_files(ReplayRequest(ROOT / "config/policies/camera-traps.yaml", sources))
    )


@pytest.fixture(scope="module")
def facts(inputs):
    return compute_report_facts(inputs)


@pytest.fixture(scope="module")
def report(facts):
    return json.loads(render_json_report(facts))


@pytest.fixture(scope="module")
def figures(report):
    (only,) = report["agreements"]
    return only


def test_the_pairing_counts(report, figures):
    predictions, decisions = report["files"]
    assert (predictions["rows"], predictions["used"]) == (16_435, 16_435)
    assert decisions["rows"] == 23_068
    assert decisions["set_aside"]["duplicate"] == 3
    assert decisions["used"] == 19_851
    assert decisions["rows"] == decisions["used"] + sum(decisions["set_aside"].values())
    assert figures["predicted"] == 16_435
    assert figures["agreement"]["n"] == 14_829
    assert figures["unjudged"] == 16_435 - 14_829
    (funnel,) = report["funnels"]
    assert [step["remaining"] for step in funnel["steps"][:2]] == [21_458, 21_454]


def test_cases_with_several_labels_are_set_aside_and_said(report):
    _, decisions = report["files"]
    rows = decisions["set_aside"]["several-labels"] + decisions["set_aside"]["duplicate"]
    assert rows == 23_068 - 19_851
    (funnel,) = report["funnels"]
    assert "several labels by one reviewer" in funnel["steps"][-1]["lost"]


def test_agreement_and_kappa(figures):
    assert figures["agreement"]["count"] == 9_958
    assert figures["agreement"]["rate"] == pytest.approx(0.671522, abs=5e-7)
    assert figures["kappa"]["value"] == pytest.approx(0.592072, abs=5e-7)
    assert figures["kappa"]["low"] < 0.592072 < figures["kappa"]["high"]


def test_alpha_is_that_of_krippendorffs_package(figures):
    table = np.array(figures["label_matrix"]["counts"])
    human, model = (np.repeat(side.ravel(), table.ravel()) for side in np.indices(table.shape))
    theirs = krippendorff.alpha(
        reliability_data=np.array([human, model], float), level_of_measurement="nominal"
    )
    assert figures["alpha"]["value"] == pytest.approx(theirs, abs=1e-12)
    assert figures["alpha"]["low"] < theirs < figures["alpha"]["high"]


@pytest.mark.parametrize("line", LABELS.strip().splitlines())
def test_the_figures_of_each_label(figures, line):
    label, *counts, precision, recall = line.rsplit(" ", 5)
    row = next(row for row in figures["labels"] if row["label"] == label)
    assert [row["human"], row["model"], row["both"]] == [int(count) for count in counts]
    assert row["precision"]["rate"] == pytest.approx(float(precision), abs=5e-7)
    assert row["recall"]["rate"] == pytest.approx(float(recall), abs=5e-7)


def test_labels_that_the_model_never_gave_have_no_precision(figures):
    rows = {row["label"]: row for row in figures["labels"]}
    for label in ("bird", "stone marten", "squirrel"):
        assert (rows[label]["model"], rows[label]["precision"]["rate"]) == (0, None)
        assert rows[label]["recall"]["rate"] == 0.0


@pytest.mark.parametrize("line", SITES.strip().splitlines())
def test_the_figures_of_each_site(figures, line):
    site, n, agree, rate, kappa = line.split()
    row = next(row for row in figures["by_site"] if row["name"] == site)
    assert (row["agreement"]["n"], row["agreement"]["count"]) == (int(n), int(agree))
    assert row["agreement"]["rate"] == pytest.approx(float(rate), abs=5e-7)
    assert row["kappa"] == pytest.approx(float(kappa), abs=5e-7)


@pytest.mark.parametrize(
    ("part", "n", "agree", "rate", "kappa"),
    [("day", 11_505, 7_484, 0.650500, 0.526346), ("night", 3_324, 2_474, 0.744284, 0.703307)],
)
def test_day_and_night_by_the_hour_as_written(figures, part, n, agree, rate, kappa):
    row = next(row for row in figures["by_day_night"] if row["name"] == part)
    assert (row["agreement"]["n"], row["agreement"]["count"]) == (n, agree)
    assert row["agreement"]["rate"] == pytest.approx(rate, abs=5e-7)
    assert row["kappa"] == pytest.approx(kappa, abs=5e-7)


def test_impossible_times_count_in_figures_and_never_in_evidence(inputs, figures, report):
    odd = inputs.records.cases.filter(pl.col("occurred_at").is_null())
    assert odd.height == 4
    assert not set(odd["case_key"]) & set(inputs.units["case_key"])
    assert sum(row["agreement"]["n"] for row in figures["by_site"]) == 14_829
    assert sum(row["agreement"]["n"] for row in figures["by_window"]) == 14_829 - 4
    assert report["funnels"][0]["steps"][1]["lost"] == {"no time": 4}


def test_bursts_make_the_interval_wider_than_the_pictures_would(figures):
    agreement = figures["agreement"]
    assert agreement["effective"] < 0.5 * agreement["n"]


def test_nothing_is_ever_widened_anywhere(facts):
    assert {cell.stage for cell in facts.stages} == {"shadow"}
    assert sum(cell.widened for cell in facts.stages) == 0
    assert len(facts.stages) == 22
    assert not [h for h in facts.events if h.kind in {"ProposalRaised", "Widened"}]
    assert facts.model_cost.cases == 0
    until = "Nothing was widened until Sat 1 Jul 2023 02:00 CEST, 1,500 days after the last case"
    assert format_headline(facts) == f"{until}: all 22 cells stayed in shadow"
    assert any("67.2" in line for line in describe_results(facts))


def test_every_divergence_is_listed_the_dearest_first(inputs, facts):
    frame = pl.read_csv(render_divergences_csv(inputs), infer_schema=False)
    assert frame.height == facts.divergences.count == 14_829 - 9_958
    assert frame["human"][0] == "lynx"
    assert set(frame["site"]) <= {site.id for site in inputs.policy.sites}


def test_the_page_is_whole_and_not_too_large(facts):
    text = render_html_report(facts)
    assert len(text.encode()) < 600_000
    assert "computo-2022" in text
