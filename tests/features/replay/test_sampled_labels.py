"""Predictions of which only a sample was labelled: the model is as good as on the sample."""

import json
import random

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.kernel.policy_files.reader import parse_policy
from rollout.terminal import remote

PREDICTED, LABELLED, RIGHT = 10_000, 2_000, 1_942


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """10,000 predictions, and labels for 2,000 random ones: right in 97.1 %."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(45)  # noqa: S311 - a repeatable sample
    labels = [rng.choice(("bear", "deer")) for _ in range(PREDICTED)]
    days = [f"2026-03-{1 + number % 28:02}T{number % 24:02}:00Z" for number in range(PREDICTED)]
    rows = [f"c{n},mill,{days[n]},v1,{labels[n]}" for n in range(PREDICTED)]
    head = "case_key,site,occurred_at,model_version,label"
    (tmp_path / "predictions.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    other = {"bear": "deer", "deer": "bear"}
    sample = rng.sample(range(PREDICTED), LABELLED)
    decided = [
        f"c{n},ana,{labels[n] if place < RIGHT else other[labels[n]]},{days[n]},blind"
        for place, n in enumerate(sample)
    ]
    head = "case_key,reviewer,label,decided_at,exposure"
    (tmp_path / "decisions.csv").write_text("\n".join([head, *decided]), encoding="utf-8")
    return tmp_path


def run(*words, answers=""):
    return CliRunner().invoke(app, [*words], input=answers)


def init(*options, answers=""):
    return run("init", "predictions.csv", "decisions.csv", *options, answers=answers)


def replay(*options):
    files = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")
    done = run("replay", "policy.yaml", *files, *options)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


@pytest.mark.slow
def test_cases_without_a_decision_are_counted_and_asked_about(folder, monkeypatch):
    done = init()
    assert (done.exit_code, done.stdout) == (2, "")
    assert "predictions.csv: 8,000 of 10,000 predicted cases have no decision" in done.stderr
    assert "decide with --labels sampled or --labels all" in done.stderr
    monkeypatch.setattr(remote, "is_terminal", lambda: True)
    done = init(answers="sampled\n")
    assert "only the 2,000 of 10,000 predicted cases (20.0\u00a0%) with a decision" in done.stderr
    assert "--labels sampled --out replay" in done.stderr
    (rate,) = [
        line for line in done.stdout.splitlines() if "units_per_day" in line and "#" not in line
    ]
    assert float(rate.rpartition(" ")[2]) == pytest.approx(2_000 / 28, rel=0.05)


@pytest.mark.slow
def test_a_sample_of_labels_reads_as_good_as_the_model_is(folder):
    done = init("--labels", "sampled")
    assert parse_policy(done.stdout).expect.agreement == pytest.approx(0.971)
    (folder / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    text = replay("--labels", "sampled", "--out", "replay")
    assert "v1 agrees with humans on 97.1 % of 2,000 cases" in text
    assert "Labels are a sample (--labels sampled): only the 2,000 of 10,000" in text
    assert "mill · always" in text
    report = json.loads((folder / "replay" / "report.json").read_text("utf-8"))
    assert "--labels sampled" in report["identity"]["command"]
    html = (folder / "replay" / "report.html").read_text("utf-8")
    assert "Labels are a sample (--labels sampled)" in html


@pytest.mark.slow
def test_labels_of_all_cases_count_missing_ones_against_the_model(folder):
    done = init("--labels", "all")
    (folder / "policy.yaml").write_text(done.stdout, encoding="utf-8")
    for options in ((), ("--labels", "all")):
        text = replay(*options)
        assert "8,000 of 10,000 predicted cases have no decision and count against" in text
        assert "v1 has agreement 19.4 % (1,942 of 10,000 units" in text
