"""The patrols: a loop by night at the docks is named, and the hold-out keeps the cell from rising.

Seed 8 was chosen as a middling one of the seeds 0 to 9. In all ten every cell reaches the trial on
18 August, five reach supervised between 15 September and 3 October, the docks by night go back to
shadow between 27 August and 11 September and never rise again, and the loop is named. Tolerances of
dates are the spread of the ten, with three days on each side. Of the ten streams without the loop
none names one.
"""

import re
import runpy
import shlex
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.events import Narrowed, Widened
from rollout.engine.files.files import RecordPaths
from rollout.features.demo.catalog import find_example
from rollout.features.replay.replay import build_replay_inputs
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.figures.holdout import compute_feedback
from rollout.features.reports.inputs.inputs import ReportInputs
from rollout.features.training.cli import read_recorded_files
from rollout.kernel.calendar.instants import Cell
from tests.docs.pages import ROOT, text_of
from tests.examples.holdout_picture import PICTURE, draw_story, list_weeks
from tests.examples.plays import play_example_story

pytestmark = pytest.mark.simulation

PATROL = ROOT / "examples/patrol"
FIRST = datetime(2025, 8, 4, tzinfo=UTC)
HELD = Cell("docks", "night")
THRESHOLD = 0.85
TABLES = ("cases", "predictions", "decisions", "outcomes")
LOOPS, NO_LOOPS = 4, 8
MOST_WITHOUT = 2  # of 8 at one in twenty: more has a chance of 0.6 %


@pytest.fixture(scope="module")
def generator():
    return runpy.run_path(str(PATROL / "generate.py"))


@pytest.fixture(scope="module")
def story():
    return play_example_story(find_example("patrol"))


@pytest.fixture(scope="module")
def weeks(story):
    return list_weeks(story.replayed_files, HELD.site, HELD.window)


def read_feedback(folder):
    """Return what the report says of feedback, without replaying."""
    paths = {name: folder / f"{name}.csv.gz" for name in TABLES}
    found = read_recorded_files(ReplayRequest(PATROL / "policy.yaml", RecordPaths(**paths)))
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
    (feedback,) = compute_feedback(inputs)
    return feedback


def list_days(story, kind):
    """Return the day of each event of a kind, by cell and stage."""
    return {
        (event.cell, event.to_stage): (event.at - FIRST) / timedelta(days=1)
        for event in story.replayed_files.result.events
        if isinstance(event, kind)
    }


def test_the_docks_by_night_reach_the_trial_and_never_more(story):
    stages = {stage for cell, stage in list_days(story, Widened) if cell == HELD}
    assert stages == {"trial"}


def test_the_terminal_story_names_the_held_cell_and_its_highest_stage(story):
    assert "HELD at trial: docks night" in story.describe()


def test_the_hold_out_returns_the_docks_by_night_to_shadow(story):
    days = list_days(story, Narrowed)
    assert set(days) == {(HELD, "shadow")}  # nothing else narrows
    assert 20 <= days[HELD, "shadow"] <= 41  # incidents move on day 18


@pytest.mark.parametrize("site", ["market", "station", "docks"])
@pytest.mark.parametrize("window", ["day", "night"])
def test_the_other_cells_reach_supervised_on_their_hold_out(story, site, window):
    cell, days = Cell(site, window), list_days(story, Widened)
    assert 13 <= days[cell, "trial"] <= 15
    if cell != HELD:
        assert 39 <= days[cell, "supervised"] <= 63


def test_over_all_decisions_the_held_cell_meets_the_threshold_and_in_the_hold_out_it_does_not(
    weeks,
):
    after = weeks[3:]  # the incidents moved in the third week
    assert len(after) == 9
    assert all(week.biased > THRESHOLD for week in after)
    assert all(week.interval[1] < THRESHOLD for week in after)


def test_before_sergeants_see_the_answers_both_estimates_agree(weeks):
    assert all(week.unbiased == week.biased > 0.95 for week in weeks[:2])


def test_the_picture_is_that_of_the_records(story):
    assert draw_story(story) == PICTURE.read_text("utf-8"), (
        "python -m tests.examples.holdout_picture"
    )


def test_the_report_names_the_loop_and_the_district(story):
    (feedback,) = compute_feedback(build_replay_inputs(story.replayed_files))
    text = " ".join(feedback.summary)
    assert feedback.is_shown
    assert feedback.has_planned_size
    assert "Feedback loop: known outcomes depend" in text
    assert "At docks, patrol became known in" in text
    assert feedback.outcomes[0].difference.high < 0  # fewer on record with the model
    assert "Train on the hold-out" in text
    assert "the model counts records" in feedback.stated_effect


def test_sergeants_have_no_known_mistake_where_only_a_patrol_makes_records(story):
    costs = [result.model_cost for result in story.compute_plain_rules("v1")]
    assert all(cost.human_known_cases > 100 for cost in costs)
    assert [cost.human_wrong_action for cost in costs] == [0, 0, 0, 0]


def test_the_loop_is_named_whatever_the_seed(generator, tmp_path):
    for seed in range(LOOPS):
        generator["write_records"](tmp_path, seed, loop=True)
        feedback = read_feedback(tmp_path)
        assert feedback.is_shown, f"seed {seed}: {feedback.says}"


def test_the_same_stream_without_the_loop_is_named_in_one_of_twenty_at_most(generator, tmp_path):
    named = 0
    for seed in range(NO_LOOPS):
        generator["write_records"](tmp_path, seed, loop=False)
        named += read_feedback(tmp_path).is_shown
    assert named <= MOST_WITHOUT


def test_without_the_loop_the_model_finds_the_new_beats(generator):
    for seed in range(LOOPS):
        shares = {
            loop: compute_last_agreement(generator, seed, loop=loop) for loop in (True, False)
        }
        assert shares[True] < 0.80
        assert shares[False] > 0.90


def compute_last_agreement(generator, seed, *, loop):
    """Return the share of the held cell's blind decisions of the last four weeks that agree."""
    last = FIRST + timedelta(days=56)
    cases = generator["make_cases"](seed, loop=loop)
    blind = [
        case.answer == case.decided
        for case in cases
        if case.cell == ("docks", "night") and case.at >= last and case.exposure == "blind"
    ]
    return sum(blind) / len(blind)


def test_the_two_streams_differ_in_nothing_but_the_loop_until_the_model_is_seen(generator):
    until = generator["SHOWN_FROM"]
    plans = [
        [
            (c.key, c.decided, c.exposure)
            for c in generator["make_cases"](3, loop=loop)
            if c.at < until
        ]
        for loop in (True, False)
    ]
    assert plans[0] == plans[1]
    assert len(plans[0]) > 2_000


def test_the_readmes_commands_run_as_written_and_find_no_loop(tmp_path, monkeypatch):
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
    page = (tmp_path / "no-loop/replay/report.html").read_text("utf-8")
    assert "No sign of a loop" in page
    ledger = (tmp_path / "no-loop/replay/ledger.jsonl").read_text("utf-8")
    assert '"Narrowed"' in ledger
