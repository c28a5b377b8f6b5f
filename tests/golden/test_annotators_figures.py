"""People and networks on CIFAR-10: the figures of ../shared/data/README.md, out of report.json.

The records have neither site nor time: here they are given one site and a case a minute from
1 January 2026 on. Nor is it known who chose what: the choices of a case are numbered, and each
number is made a person here, so that figures by person mean nothing. People are known of the first
2,000 cases, outcomes and networks of all 10,000.
"""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rollout.engine.files.files import RecordPaths
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.facts import compute_report_facts
from rollout.features.reports.figures.ratings import compute_rater_agreement
from rollout.features.reports.pages.json_report import render_json_report

ROOT = Path(__file__).parents[2]
RECORDS = ROOT.parent / "shared/data/cifar10-humans"
POLICY = """
rollout: pictures
timezone: UTC
levers:
  - id: thing
    labels: [airplane, automobile, bird, cat, deer, dog, frog, horse, ship, truck]
sites: [lab]
evidence: {unit: case, outside: blind, grace: 1d}
gates: [{to: supervised, require: [{measure: agreement, at_least: 99%}]}]
tick: 1d
"""

is_absent = pytest.mark.skipif(
    not RECORDS.exists(), reason=f"the records are not on this machine: {RECORDS}"
)
pytestmark = [pytest.mark.slow, is_absent]  # a whole history is replayed before the first one

# = outcome, = majority of the first 2,000, a random person there, kappa against the outcome
NETWORKS = """
cleanlab-cv 9294 1851 0.897343 0.921556
resnet-110 9389 1866 0.904913 0.932111
preresnet-110 9506 1896 0.917254 0.945111
densenet-bc-L190-k40 9668 1921 0.929540 0.963111
"""
# of all 10,000: = majority without ties, a random person
MAJORITY = """
cleanlab-cv 9264 0.896668
resnet-110 9369 0.906009
preresnet-110 9484 0.916037
densenet-bc-L190-k40 9648 0.930136
"""


def read(name):
    return pl.read_csv(RECORDS / name)


def minute(frame):
    """Give each case its place and its minute; both are made up."""
    number = pl.col("case_key").str.slice(-5).str.to_integer()
    at = pl.datetime(2026, 1, 1, time_zone="UTC") + pl.duration(minutes=number)
    return frame.with_columns(
        site=pl.lit("lab"), occurred_at=at.dt.strftime("%Y-%m-%dT%H:%M:%SZ"), lever=pl.lit("thing")
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    said = read("predictions.csv.gz").select(
        "case_key", "label", "confidence", model="model", model_version="model"
    )
    chose = read("decisions-first-2000.csv.gz").select(
        "case_key", "label", reviewer=pl.format("choice-{}", "slot")
    )
    for name, frame in (("predictions", said), ("decisions", chose)):
        minute(frame).drop("lever", "model", strict=False).write_csv(folder / f"{name}.csv")
    read("outcomes.csv.gz").write_csv(folder / "outcomes.csv")
    (folder / "policy.yaml").write_text(POLICY)
    sources = RecordPaths(
        folder / "predictions.csv", folder / "decisions.csv", outcomes=folder / "outcomes.csv"
    )
    facts = compute_report_facts(
        build_replay_inputs(replay_files(ReplayRequest(folder / "policy.yaml", sources)))
    )
    return json.loads(render_json_report(facts))


@pytest.fixture(scope="module")
def counts():
    return read("human_counts.csv.gz").sort("case_key")


@pytest.fixture(scope="module")
def beside(report):
    return {row["version"]: row for row in report["reviewer_agreement"]["ceilings"]}


def test_people_agree_with_each_other_as_was_counted(beside):
    (among,) = {json.dumps(row["reviewers"]) for row in beside.values()}
    found = json.loads(among)
    assert (found["cases"], found["decisions"]) == (2_000, 102_126)
    assert found["pairwise"] == pytest.approx(0.925987, abs=5e-7)
    assert found["alpha"]["value"] == pytest.approx(0.917689, abs=1e-6)  # in fractions .9176881
    assert found["ac1"]["value"] == pytest.approx(0.917766, abs=5e-7)
    assert found["fleiss"]["value"] == pytest.approx(0.91774, abs=5e-6)
    for name in ("alpha", "ac1", "fleiss"):
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


@pytest.mark.parametrize("line", NETWORKS.strip().splitlines())
def test_each_network_beside_people_and_outcomes(report, beside, line):
    version, right, majority, random, kappa = line.split()
    (found,) = [row for row in report["correctness"] if row["version"] == version]
    assert (found["model"]["count"], found["model"]["n"]) == (int(right), 10_000)
    assert found["kappa"]["value"] == pytest.approx(float(kappa), abs=5e-7)
    with_people = beside[version]
    assert with_people["majority"]["count"] == int(majority)
    assert with_people["with_model"]["pairwise"] == pytest.approx(float(random), abs=5e-7)


def test_the_best_network_is_at_the_ceiling_and_the_worst_is_not(beside):
    people_apart = beside["cleanlab-cv"]["reviewers"]["random"]
    best, worst = (
        beside[v]["with_model"]["random"] for v in ("densenet-bc-L190-k40", "cleanlab-cv")
    )
    assert best["rate"] > people_apart["rate"] > worst["rate"]
    assert worst["high"] < people_apart["rate"]


def test_all_choices_of_all_cases(counts):
    values = counts.drop("case_key").to_numpy().astype(np.int64)
    found = compute_rater_agreement(values, np.arange(len(values)))
    assert (found.cases, found.decisions) == (10_000, 511_000)
    assert found.alpha.value == pytest.approx(0.915055, abs=5e-7)
    assert found.pairwise == pytest.approx(0.923530, abs=5e-7)
    assert found.pairs.rate == pytest.approx(0.923583, abs=5e-7)
    assert found.ac1.value == pytest.approx(0.915034, abs=5e-7)
    assert found.alpha.high - found.alpha.low < 0.01


@pytest.mark.parametrize(
    ("first", "cases", "kappa"), [(10_000, 3_050, 0.914547), (2_000, 568, 0.906428)]
)
def test_fleiss_of_the_cases_with_51_choices(counts, first, cases, kappa):
    values = counts.head(first).drop("case_key").to_numpy().astype(np.int64)
    same = values[values.sum(axis=1) == 51]
    assert len(same) == cases
    found = compute_rater_agreement(same, np.arange(cases))
    assert found.fleiss.value == pytest.approx(kappa, abs=5e-7)


@pytest.mark.parametrize("line", MAJORITY.strip().splitlines())
def test_each_network_against_all_choices(counts, line):
    version, majority, random = line.split()
    values = counts.drop("case_key").to_numpy()
    said = read("predictions.csv.gz").filter(pl.col("model") == version).sort("case_key")
    names = counts.columns[1:]
    place = said["label"].replace_strict(names, list(range(10))).to_numpy()
    drawn = values[np.arange(10_000), place] / values.sum(axis=1)
    assert drawn.mean() == pytest.approx(float(random), abs=5e-7)
    most = values.max(axis=1)
    alone = (values == most[:, None]).sum(axis=1) == 1
    assert alone.sum() == 9_997
    assert (values[np.arange(10_000), place] == most)[alone].sum() == int(majority)
