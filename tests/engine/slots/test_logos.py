"""Sets of labels from files to the report: ten logos, some in each picture."""

import json

import krippendorff
import numpy as np
import polars as pl
import pytest
from sklearn.metrics import precision_recall_fscore_support
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.compare import compare
from rollout.features.replay.replay import build_replay_inputs, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.agreement import compute_agreements
from rollout.features.reports.inputs.divergences import render_divergences_csv
from rollout.features.reports.inputs.pairs import build_pairs
from rollout.features.reports.pages.html_report import render_html_report
from rollout.features.reports.pages.summary import describe_results
from rollout.kernel.policy_files.reader import parse_policy
from rollout.kernel.statistics.agreement import compare_sets
from tests.engine.slots.facts import compute_replay_facts
from tests.engine.slots.logos import LOGOS, POLICY, build_sets, write_stream
from tests.engine.slots.pricing import SALT, list_widenings

pytestmark = pytest.mark.slow


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
    assert any(
        r.condition == {"measure": "recall", "threshold": "0.8", "label": "logo-j"}
        for r in raised.readings
    )


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
    assert (figures.kappa, figures.ac1, figures.label_matrix) == (None, None, None)
    (ceiling,) = facts.reviewer_agreement.ceilings
    assert ceiling.reviewers.cases == 120
    assert 0.7 < ceiling.reviewers.alpha.value < 1
    page = render_html_report(facts, view="engineer")
    assert "labels and slices" in page
    assert "alpha by MASI distance" in page
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
    shares = policy.expect.labels
    assert shares["logo-j"] > 0.3
    (tmp_path / "policy.yaml").write_text(done.stdout)
    replayed = replay_files(ReplayRequest(tmp_path / "policy.yaml", paths))
    human, _, model = build_sets(cases=60)
    gate = replayed.units.filter(pl.col("track") == "gate")
    agreeing = gate.filter(pl.col("predicted") == pl.col("decided")).height
    assert agreeing == (human == model).all(axis=1).sum()


def test_init_says_how_a_set_without_labels_is_written(tmp_path):
    rows = [(f"c{n}", "hall", f"2027-03-01T{8 + n:02}:00Z", "v1") for n in range(8)]
    answers = ["a;b", "", "a", "", "b;c", "[]", "(none of them)", "c"]
    names = "case_key,site,occurred_at,model_version,label\n"
    lines = [",".join([*row, answer]) for row, answer in zip(rows, answers, strict=True)]
    (tmp_path / "predictions.csv").write_text(names + "\n".join(lines))
    lines = [
        f"{row[0]},ana,{answer or '[]'},blind" for row, answer in zip(rows, answers, strict=True)
    ]
    (tmp_path / "decisions.csv").write_text("case_key,reviewer,label,exposure\n" + "\n".join(lines))
    files = [str(tmp_path / f"{name}.csv") for name in ("predictions", "decisions")]
    done = CliRunner().invoke(app, ["init", *files, "--timezone", "UTC"])
    hint = "have no answer, and agree with nothing; for a set without labels write [] or (none of"
    assert f"  2 predictions {hint} them)" in done.stderr
    assert f"decisions {hint}" not in done.stderr
    assert "and 4 none of them, so an answer is a set of 3 labels" in done.stderr


@pytest.mark.slow
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
    (unknown,) = compute_replay_facts(replayed).unknown_labels
    assert (unknown.side, unknown.answers) == ("human", (('["logo-a", "logo-a"]', 1),))
    assert unknown.other_separators == 0


def test_sets_with_another_separator_are_named_with_a_remedy(tmp_path):
    paths = write_stream(tmp_path, cases=20, misses=0)
    lines = paths.decisions.read_text().splitlines()
    for number, text in ((2, "logo-b, logo-a"), (3, "['logo-a', 'logo-c']")):
        lines[number] = json.dumps({**json.loads(lines[number]), "label": text})
    paths.decisions.write_text("\n".join(lines))
    (tmp_path / "policy.yaml").write_text(POLICY)
    replayed = replay_files(ReplayRequest(tmp_path / "policy.yaml", paths))
    facts = compute_replay_facts(replayed)
    (text,) = (text for text in describe_results(facts) if "outside the policy's labels" in text)
    assert text.endswith(
        "each counts as a disagreement. 2 of them are sets with another separator: join labels by"
        " `;`, as in `a;b`, and write an empty set as `[]`."
    )


@pytest.mark.simulation
def test_compare_and_the_report_have_the_same_figures(replayed, tmp_path):
    records, policy = replayed.records, replayed.policy
    pairs = build_pairs(records, replayed.history.cases, policy)
    none = pairs.frame.clear()
    (expected,) = compute_agreements(pairs, none, records, policy)
    rows = pairs.frame.select("case_key", "human", "model", "confidence")
    rows = rows.with_columns(pl.col("human").str.replace_all(";", " ; "))
    unreviewed = records.predictions.join(rows, on="case_key", how="anti")
    missing = {"human": pl.lit(None, pl.String), "model": pl.col("value:logos")}
    unreviewed = unreviewed.select("case_key", "confidence", **missing)
    pl.concat([rows, unreviewed.select(rows.columns)]).write_csv(tmp_path / "pairs.csv")
    found = compare(tmp_path / "pairs.csv", policy=replayed.policy)
    (comparison,), (sets,) = found.comparisons, found.sets
    for name in ("agreement", "bounds", "labels", "cost"):
        assert getattr(comparison, name) == getattr(expected, name)
    assert sets.alpha == expected.alpha
    assert comparison.unjudged == expected.unjudged > 5
    texts = sorted({*pairs.frame["human"], *pairs.frame["model"]})
    human, model = (
        np.array([texts.index(text) for text in pairs.frame[side]]) for side in ("human", "model")
    )
    distances, _ = compare_sets(texts, 1.0)
    theirs = krippendorff.alpha(
        reliability_data=np.array([human, model]),
        value_domain=list(range(len(texts))),
        level_of_measurement=lambda x, y, **_: distances[x.astype(int), y.astype(int)],
    )
    assert sets.alpha.low < sets.alpha.value < sets.alpha.high
    assert sets.alpha.value == pytest.approx(theirs, abs=1e-9)
