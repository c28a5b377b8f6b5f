"""What the story of the prices promises, on the shipped records.

Tolerance over seeds 0 to 9, which were all tried: the same cells widen in the same hours, the
harbour's weekends stay in trial and lose 2.9 to 4.6 EUR a price at 92 to 100 % agreement. Seed 3
was chosen because it is near the middle of both.
"""

from pathlib import Path

import polars as pl
import pytest

from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import RecordedArmsError, replay_files
from rollout.features.replay.requests import ReplayRequest
from rollout.features.reports.pages.findings import rank_findings
from rollout.features.reports.pages.summary import describe_results
from rollout.kernel.calendar.instants import Cell
from tests.examples.plays import play_example_story

FOLDER = Path(__file__).parents[2] / "examples" / "prices"
HELD = Cell("harbour-shop", "weekend")
pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def story():
    return play_example_story(find_example("prices"))


@pytest.fixture(scope="module")
def replayed(story):
    return story.replayed_files


@pytest.fixture(scope="module")
def facts(story):
    return story.facts


@pytest.fixture(scope="module")
def gains(facts):
    return {Cell(gain.site, gain.window): gain for gain in facts.gains}


@pytest.fixture(scope="module")
def agreements(facts):
    return {Cell(item.site, item.window): item.all.rate for item in facts.visible_agreements}


def list_moves(replayed):
    """Return (cell, stage, date) of each event that changed a stage, in order."""
    return [
        (
            f"{event.cell.site} {event.cell.window}",
            getattr(event, "to_stage", ""),
            f"{event.at:%m-%d}",
        )
        for event in replayed.result.events
        if type(event).__name__ in {"Widened", "Narrowed", "Suspended", "GrantExpired"}
    ]


def test_shops_begin_their_trials_one_after_the_other_and_five_cells_go_wide(replayed):
    assert list_moves(replayed) == [
        ("north-shop weekday", "trial", "09-13"),
        ("north-shop weekend", "trial", "09-15"),
        ("harbour-shop weekday", "trial", "09-20"),
        ("harbour-shop weekend", "trial", "09-22"),
        ("web-shop weekday", "trial", "09-27"),
        ("web-shop weekend", "trial", "09-29"),
        ("north-shop weekday", "wide", "10-25"),
        ("north-shop weekend", "wide", "10-27"),
        ("harbour-shop weekday", "wide", "11-01"),
        ("web-shop weekday", "wide", "11-08"),
        ("web-shop weekend", "wide", "11-10"),
    ]


def test_where_the_model_goes_wide_it_earns_more_and_seldom_agrees(gains, agreements):
    for cell in gains.keys() - {HELD}:
        assert gains[cell].lower > 0, cell
        assert 3.5 < gains[cell].gain < 10, cell
        assert agreements[cell] < 0.3, cell


def test_the_held_cell_agrees_nearly_always_and_earns_less(gains, agreements):
    assert agreements[HELD] == pytest.approx(0.98, abs=0.005)
    assert gains[HELD].upper < 0
    assert gains[HELD].gain == pytest.approx(-4, abs=0.5)


def test_no_step_beyond_the_trial_is_even_proposed_for_the_held_cell(replayed):
    raised = {
        event.to_stage
        for event in replayed.result.events
        if type(event).__name__ == "ProposalRaised" and event.cell == HELD
    }
    assert raised == {"trial"}


def test_the_report_names_the_cells_where_agreement_and_profit_point_apart(facts):
    apart = [line for line in describe_results(facts) if "point apart" in line]
    assert len(apart) == 6
    (held,) = (line for line in apart if line.startswith("harbour-shop · weekend"))
    assert held.endswith("has the worse profit.")
    assert sum(line.endswith("has the better profit.") for line in apart) == 5


def test_the_loss_is_the_first_thing_that_every_reader_is_told(facts):
    for reader in ("operator", "engineer", "auditor"):
        first = rank_findings(facts, reader)[0]
        assert first.title == "v1 has the worse profit in harbour-shop · weekend"


def test_rules_on_agreement_would_have_opened_the_held_cell_and_lost_three_thousand_euros(
    replayed, gains
):
    records = replayed.records
    cases = (
        records.cases.join(
            records.predictions.select("case_key", model="value:price"), on="case_key"
        )
        .join(records.decisions.select("case_key", human="value:price"), on="case_key")
        .filter(pl.col("site") == HELD.site, pl.col("occurred_at").dt.weekday() > 5)
        .sort("occurred_at", "case_key")
    )
    model, human = (cases[name].cast(pl.Float64) for name in ("model", "human"))
    agrees = ((model - human).abs() <= 0.1 * human).to_list()
    assert sum(agrees[:100]) >= 90
    assert all(sum(agrees[start : start + 50]) >= 45 for start in (0, 50, 100))
    assert cases["occurred_at"][149].strftime("%m-%d") <= "09-21"
    lost = -gains[HELD].gain * (len(agrees) - 150)
    assert 2_700 < lost < 3_500


def test_a_replay_under_another_share_is_refused(tmp_path):
    request = build_replay_request(find_example("prices"))
    text = request.policy.read_text("utf-8").replace(
        "{id: trial, share: 40%}", "{id: trial, share: 20%}"
    )
    (tmp_path / "policy.yaml").write_text(text, "utf-8")
    with pytest.raises(RecordedArmsError):
        replay_files(ReplayRequest(tmp_path / "policy.yaml", request.sources))
