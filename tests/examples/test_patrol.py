"""A loop that feeds itself is told over many seeds; the same stream without it is not."""

import re
import runpy
import shlex
import sys

import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.formats.records.files import RecordPaths
from rollout.reports.figures.feedback_loop import compute_feedback
from rollout.reports.inputs.inputs import ReportInputs
from rollout.services.replay.replay import ReplayRequest
from rollout.services.training.cleaning_files import read_recorded_files
from tests.docs.pages import ROOT, text_of

PATROL = ROOT / "examples/patrol"
LOOPS, NO_LOOPS = 4, 12
MOST_TOLD = 3  # of 12 at one in twenty: more has a chance of 0.2 %


@pytest.fixture(scope="module")
def write():
    return runpy.run_path(str(PATROL / "generate.py"))["write"]


def fed(folder):
    """Return what the report says of feedback, without replaying."""
    named = [folder / f"{name}.csv" for name in ("predictions", "decisions", "outcomes")]
    sources = RecordPaths(named[0], named[1], None, named[2])
    found = read_recorded_files(ReplayRequest(PATROL / "policy.yaml", sources))
    times = found.records.cases["occurred_at"]
    inputs = ReportInputs(
        policy=found.policy,
        events=(),
        timelines={},
        evidence_views={},
        units=pl.DataFrame(),
        records=found.records,
        cases=found.cases,
        unplaced={},
        first=times.min(),
        last=times.max(),
        salt=bytes(32),
        is_simulated=True,
    )
    (one,) = compute_feedback(inputs)
    return one


def test_the_loop_is_told_whatever_the_seed(write, tmp_path):
    for seed in range(LOOPS):
        write(tmp_path, seed, loop=True)
        one = fed(tmp_path)
        assert one.as_drawn
        assert one.feeds, f"seed {seed}: {one.says}"
        assert "the model counts records" in one.charter


@pytest.mark.simulation
def test_the_same_stream_without_the_loop_is_told_in_one_of_twenty_at_most(write, tmp_path):
    told = 0
    for seed in range(NO_LOOPS):
        write(tmp_path, seed, loop=False)
        told += fed(tmp_path).feeds
    assert told <= MOST_TOLD


def test_a_seed_gives_the_same_records_again(write, tmp_path):
    write(tmp_path / "a", 3, loop=True)
    write(tmp_path / "b", 3, loop=True)
    for name in ("predictions.csv", "decisions.csv", "outcomes.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_two_streams_differ_in_nothing_but_the_loop_until_the_model_is_seen(write, tmp_path):
    write(tmp_path / "loop", 3, loop=True)
    write(tmp_path / "none", 3, loop=False)
    first, second = (
        (tmp_path / name / "decisions.csv").read_text().splitlines()[: 4 * 84]
        for name in ("loop", "none")
    )
    assert first == second


def test_the_readmes_commands_run_as_written_and_say_what_it_says(tmp_path, monkeypatch):
    (block,) = re.findall(r"```sh\n(.*?)```", text_of("examples/patrol/README.md"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for line in block.strip().splitlines():
        program, *words = shlex.split(line)
        if program == "python":
            monkeypatch.setattr(sys, "argv", words)
            runpy.run_path(words[0], run_name="__main__")
        else:
            done = CliRunner().invoke(app, words)
            assert done.exit_code == 0, done.output
    pages = {
        name: (tmp_path / name / "replay/report.html").read_text("utf-8")
        for name in ("loop", "no-loop")
    }
    assert "Feedback loop: known outcomes depend" in pages["loop"]
    assert "No sign of a loop" in pages["no-loop"]
