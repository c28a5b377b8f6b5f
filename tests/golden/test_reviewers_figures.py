"""Known reviewers on hard pictures: the figures of ../shared/data/README.md, out of report.json.

The records have no site, no time and no model. Here each of the three tasks is a site of its own
and a rollout of its own, since the people behind equal reviewer ids need not be the same; a case a
minute from 1 January 2026 on; and a model is made up that says "boat" of everything.
"""

import json
from pathlib import Path

import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.pages.json_report import render_json_report

ROOT = Path(__file__).parents[2]
RECORDS = ROOT.parent / "shared/data/object-recognition-humans/decisions.csv.gz"

pytestmark = pytest.mark.skipif(
    not RECORDS.exists(), reason=f"the records are not on this machine: {RECORDS}"
)

TASKS = {
    "sketch": {
        "reviewers": 7, "cases": 800, "answered": 5560, "blank": 40, "agreeing": 14905,
        "pairs": 16560, "alpha": 0.892619, "ac1": 0.89198, "fleiss": 0.89190, "right": 5131,
        "worst": 0.836, "best": 0.961, "majority_right": 769, "without_tie": 794,
    },
    "edge": {
        "reviewers": 10, "cases": 160, "answered": 1566, "blank": 34, "agreeing": 5777,
        "pairs": 6899, "alpha": 0.825482, "ac1": 0.82439, "fleiss": 0.82419, "right": 1394,
        "worst": 0.754, "best": 0.956, "majority_right": 153, "without_tie": 154,
    },
    "silhouette": {
        "reviewers": 10, "cases": 160, "answered": 1578, "blank": 22, "agreeing": 5023,
        "pairs": 7005, "alpha": 0.694680, "ac1": 0.69325, "fleiss": 0.69193, "right": 1205,
        "worst": 0.654, "best": 0.861, "majority_right": 132, "without_tie": 156,
    },
}  # fmt: skip


def report_of(task, folder):
    own = pl.read_csv(RECORDS).filter(pl.col("task") == task).sort("case_key", "reviewer")
    at = pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(
        minutes=pl.col("case_key").rank("dense").cast(pl.Int64)
    )
    own = own.with_columns(
        site=pl.lit(task), occurred_at=at.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), made_up=pl.lit("boat")
    )
    facts = ("case_key", "site", "occurred_at")
    own.select(*facts, "reviewer", "label").write_csv(folder / "decisions.csv")
    cases = own.unique("case_key", keep="first", maintain_order=True)
    cases.select(*facts, label="made_up", model_version=pl.lit("made-up")).write_csv(
        folder / "predictions.csv"
    )
    cases.select("case_key", label="outcome").write_csv(folder / "outcomes.csv")
    labels = ", ".join(sorted(set(own["outcome"]) | set(own["label"].drop_nulls())))
    (folder / "policy.yaml").write_text(
        f"""
rollout: {task}
timezone: UTC
levers: [{{id: thing, labels: [{labels}]}}]
sites: [{task}]
evidence: {{unit: case, outside: blind, grace: 1d}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 99%}}]}}]
tick: 1d
"""
    )
    sources = RecordPaths(
        folder / "predictions.csv", folder / "decisions.csv", outcomes=folder / "outcomes.csv"
    )
    facts = compute_report_facts(
        build_replay_inputs(replay_files(ReplayRequest(folder / "policy.yaml", sources)))
    )
    return json.loads(render_json_report(facts))


@pytest.fixture(scope="module", params=TASKS)
def told(request, tmp_path_factory):
    return TASKS[request.param], report_of(request.param, tmp_path_factory.mktemp("task"))


def test_reviewers_agree_as_was_counted(told):
    golden, report = told
    (ceiling,) = report["reviewer_agreement"]["ceilings"]
    found = ceiling["reviewers"]
    assert (found["cases"], found["decisions"]) == (golden["cases"], golden["answered"])
    assert (found["pairs"]["count"], found["pairs"]["n"]) == (golden["agreeing"], golden["pairs"])
    assert found["alpha"]["value"] == pytest.approx(golden["alpha"], abs=5e-7)
    assert found["ac1"]["value"] == pytest.approx(golden["ac1"], abs=6e-6)
    assert found["fleiss"]["value"] == pytest.approx(golden["fleiss"], abs=6e-6)


def test_each_reviewer_against_the_outcome(told):
    golden, report = told
    people = report["reviewer_agreement"]["reviewers"]
    assert len(people) == golden["reviewers"]
    assert sum(p["answers"] for p in people) == golden["answered"]
    assert sum(p["unsure"] for p in people) == golden["blank"]
    assert sum(p["with_outcome"]["count"] for p in people) == golden["right"]
    rates = [p["with_outcome"]["rate"] for p in people]
    assert min(rates) == pytest.approx(golden["worst"], abs=5e-4)
    assert max(rates) == pytest.approx(golden["best"], abs=5e-4)


def test_what_most_people_say_is_right_more_often_than_one_of_them(told):
    golden, report = told
    (ceiling,) = report["reviewer_agreement"]["ceilings"]
    found = ceiling["majority_outcome"]
    assert (found["count"], found["n"]) == (golden["majority_right"], golden["without_tie"])
    assert found["rate"] > golden["right"] / golden["answered"]
