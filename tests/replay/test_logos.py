"""Sets of labels from files to the report: ten logos, some in each picture."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_recall_fscore_support
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.formats.policy.reader import parse_policy
from rollout.replay.engine import ReplayOptions
from rollout.reports.inputs.divergences import render_divergences_csv
from rollout.reports.pages.html_report import render_html_report
from rollout.services.replay.replay import ReplayRequest, replay_files
from rollout.services.replay.replay_output import build_replay_inputs, compute_replay_facts
from tests.replay.logos import LOGOS, POLICY, build_sets, write_stream
from tests.replay.pricing import SALT, list_widenings


@pytest.fixture(scope="module", name="replayed")
def replay_logos(tmp_path_factory):
    """The replay of a model that misses or adds one label in fifty."""
    folder = tmp_path_factory.mktemp("logos")
    paths = write_stream(folder)
    return replay_files(ReplayRequest(folder / "policy.yaml", paths, options=ReplayOptions(SALT)))


def find_overlaps(human, model):
    """Return the Jaccard index of each case, 1 of two empty sets."""
    either = (human | model).sum(axis=1)
    return np.where(either, (human & model).sum(axis=1) / np.maximum(either, 1), 1.0)


def test_a_model_whose_sets_overlap_widens(replayed):
    assert [stage for stage, _ in list_widenings(replayed)] == ["supervised"]
    raised = next(e for e in replayed.result.events if type(e).__name__ == "ProposalRaised")
    assert any(reading.startswith("recall of logo-j at least 80 %") for reading in raised.readings)


def test_every_unit_agrees_as_its_overlap_says(replayed):
    human, _, model = build_sets()
    agrees = find_overlaps(human, model) >= 0.6 - 1e-9
    gate = replayed.units.filter(pl.col("track") == "gate").sort("unit")
    found = dict(gate.select("unit", pl.col("predicted") == pl.col("decided")).unique().iter_rows())
    assert found == {f"shot-{n}": bool(value) for n, value in enumerate(agrees)}
    assert 20 < (~agrees).sum() < 580


@pytest.mark.simulation
def test_the_report_has_labels_in_place_of_matrices(replayed):
    facts = compute_replay_facts(replayed)
    (figures,) = facts.agreements
    human, _, model = build_sets()
    alone = np.array([n for n in range(600) if n % 5])  # with a single reviewer
    pairs = replayed.records.decisions.filter(pl.len().over("case_key") == 2)
    equal = pairs.group_by("case_key").agg(same=pl.col("value:logos").n_unique() == 1)
    kept = [int(key.split("-")[1]) for key, same in equal.iter_rows() if same]
    rows = np.array(sorted([*alone, *kept]))
    precision, recall, _, support = precision_recall_fscore_support(human[rows], model[rows])
    labels = {row.label: row for row in figures.labels}
    for index, label in enumerate(LOGOS):
        assert labels[label].human == support[index]
        assert labels[label].recall.rate == pytest.approx(recall[index])
        assert labels[label].precision.rate == pytest.approx(precision[index])
    assert (figures.kappa, figures.alpha, figures.label_matrix) == (None, None, None)
    (ceiling,) = facts.people.ceilings
    assert ceiling.people.cases == 120
    assert 0.7 < ceiling.people.alpha.value < 1
    page = render_html_report(facts, view="engineer")
    assert "labels and slices" in page
    assert '<table class="matrix"' not in page
    assert "Cohen" not in page
    for view in ("operator", "auditor"):
        assert render_html_report(facts, view=view)


def test_divergences_list_both_sets(replayed):
    inputs = build_replay_inputs(replayed)
    rows = pl.read_csv(render_divergences_csv(inputs))
    human, _, model = build_sets()
    agrees = find_overlaps(human, model) >= 0.6 - 1e-9
    numbers = [int(key.split("-")[1]) for key in rows["case_key"]]
    assert not agrees[numbers].any()
    row = rows.row(0, named=True)
    number = int(row["case_key"].split("-")[1])
    expected = ";".join(np.array(LOGOS)[human[number]]) or "(none of them)"
    assert row["human"] == expected
    assert set(rows["cost"]) == {1.0}


def test_init_recognizes_sets_and_its_policy_reads_them(tmp_path):
    paths = write_stream(tmp_path, cases=60)
    files = [str(paths.predictions), str(paths.decisions)]
    done = CliRunner().invoke(app, ["init", *files, "--timezone", "UTC"])
    assert done.exit_code == 0, done.stderr
    assert "so an answer is a set of 10 labels (`many: true`)" in done.stderr
    policy = parse_policy(done.stdout)
    (lever,) = policy.levers
    assert (lever.many, lever.overlap, set(lever.labels)) == (True, 1.0, set(LOGOS))
    shares = dict(policy.expect.labels)
    assert shares["logo-j"] > 0.3
    (tmp_path / "policy.yaml").write_text(done.stdout)
    replayed = replay_files(ReplayRequest(tmp_path / "policy.yaml", paths))
    human, _, model = build_sets(cases=60)
    gate = replayed.units.filter(pl.col("track") == "gate")
    agreeing = gate.filter(pl.col("predicted") == pl.col("decided")).height
    assert agreeing == (human == model).all(axis=1).sum()


def test_a_wrong_set_in_a_file_agrees_with_nothing_and_is_counted(tmp_path):
    paths = write_stream(tmp_path, cases=20, misses=0)
    lines = paths.decisions.read_text().splitlines()
    row = json.loads(lines[2])
    lines[2] = json.dumps({**row, "label": ["logo-a", "logo-a"]})
    paths.decisions.write_text("\n".join(lines))
    (tmp_path / "policy.yaml").write_text(POLICY)
    replayed = replay_files(ReplayRequest(tmp_path / "policy.yaml", paths))
    gate = replayed.units.filter(pl.col("track") == "gate")
    assert gate.filter(pl.col("predicted") != pl.col("decided")).height == 1
    (unknown,) = compute_replay_facts(replayed).unlisted
    assert (unknown.by, unknown.answers) == ("people", (('["logo-a", "logo-a"]', 1),))
