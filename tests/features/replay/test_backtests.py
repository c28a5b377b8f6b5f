"""Files predicted after they were decided: asked about, counted on request, and named as such."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.terminal import remote

pytestmark = pytest.mark.slow

CASES = 240
FILES = ("--predictions", "predictions.csv", "--decisions", "decisions.csv")
NAMED = "A backtest (--backtest): 240 predictions were made after the decisions, and count."
ASKED = "240 of 240 decided cases were predicted after they were decided"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Ten cases a day, decided at once; a model predicts all of them when all are decided."""
    monkeypatch.chdir(tmp_path)
    start = datetime(2026, 3, 2, tzinfo=UTC)
    times = [start + timedelta(hours=2.4) * number for number in range(CASES)]
    labels = ["deer" if number % 3 else "bear" for number in range(CASES)]
    said = ["case_key,site,occurred_at,model_version,label,predicted_at"]
    said += [
        f"c{n},mill,{at.isoformat()},v1,{label if n % 40 else 'deer'},2026-05-01T00:00:00Z"
        for n, (at, label) in enumerate(zip(times, labels, strict=True))
    ]
    given = ["case_key,reviewer,label,decided_at,exposure"]
    given += [
        f"c{n},ana,{label},{(at + timedelta(minutes=5)).isoformat()},blind"
        for n, (at, label) in enumerate(zip(times, labels, strict=True))
    ]
    (tmp_path / "predictions.csv").write_text("\n".join(said), encoding="utf-8")
    (tmp_path / "decisions.csv").write_text("\n".join(given), encoding="utf-8")
    drafted = run("init", "predictions.csv", "decisions.csv", "--backtest")
    assert drafted.exit_code == 0, drafted.output
    policy = drafted.stdout.replace("at_least: 95%", "at_least: 80%")
    (tmp_path / "policy.yaml").write_text(policy, encoding="utf-8")


def run(*words, answers=""):
    return CliRunner().invoke(app, [*words], input=answers)


def replay(*options):
    done = run("replay", "policy.yaml", *FILES, "--out", "out", *options)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split()), json.loads(Path("out/report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    "words",
    [("init", "predictions.csv", "decisions.csv"), ("replay", "policy.yaml", *FILES)],
    ids=["init", "replay"],
)
def test_backtest_is_asked_about_and_refused_without_an_answer(words, monkeypatch):
    done = run(*words)
    assert done.exit_code == 2
    assert ASKED in done.output
    assert "decide with --backtest or --no-backtest" in done.output
    monkeypatch.setattr(remote, "is_terminal", lambda: True)
    answered = run(*words, answers="yes\n")
    assert answered.exit_code == 0, answered.output
    assert "backtest (yes, no):" in answered.output


def test_replay_counts_a_backtest_and_says_so_on_every_report():
    text, report = replay("--backtest")
    assert NAMED in text
    assert report["sources"]["backtest"] == CASES
    assert report["sources"]["late"] is None
    assert report["funnels"][0]["steps"][-1]["lost"] == {}
    assert NAMED in Path("out/report.html").read_text("utf-8")
    assert any(event["kind"] == "Widened" for event in report["events"])


def test_predictions_that_could_have_seen_the_answers_count_as_missing_without_backtest():
    text, report = replay("--no-backtest")
    assert "A backtest (--backtest)" not in text
    assert report["sources"]["backtest"] == 0
    assert report["sources"]["late"]["set_up"].startswith("a backtest")
    assert not any(event["kind"] == "Widened" for event in report["events"])


def test_draft_of_a_backtest_names_it_and_how_to_replay_it():
    drafted = run("init", "predictions.csv", "decisions.csv", "--backtest")
    assert "# 240 predictions were made after the decisions, in a backtest:" in drafted.stdout
    assert "decisions.csv --backtest --out replay" in drafted.output
    assert "vouched" not in drafted.stdout
