"""What the story of the first places promises, on the shipped records.

Tolerance over seeds 0 to 9, which were all tried: the same cells widen in the same hours; the
campus at noon agrees most of all cells (80 to 86 %), sells less and stays in trial. Seed 3 was
chosen because it is near the middle.
"""

from pathlib import Path

import polars as pl
import pytest

from rollout.features.demo.catalog import find_example
from rollout.kernel.calendar.instants import Cell
from tests.examples.plays import play_example_story

FOLDER = Path(__file__).parents[2] / "examples" / "placement"
HELD = Cell("campus", "noon")
pytestmark = pytest.mark.simulation


@pytest.fixture(scope="module")
def story():
    return play_example_story(find_example("placement"))


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


@pytest.fixture(scope="module")
def held_cases(replayed):
    """Return the cases of the campus at noon, in order of time, with both answers."""
    records, name = replayed.records, "value:offer"
    hour = pl.col("occurred_at").dt.convert_time_zone("Europe/Lisbon").dt.hour()
    return (
        records.cases.join(records.predictions.select("case_key", model=name), on="case_key")
        .join(records.decisions.select("case_key", human=name), on="case_key")
        .filter(pl.col("site") == HELD.site, hour.is_between(11, 14))
        .sort("occurred_at", "case_key")
    )


def list_moves(replayed, stage):
    """Return (cell, hour) of each widening to a stage."""
    return {
        (f"{event.cell.site} {event.cell.window}", f"{event.at:%m-%d %H}")
        for event in replayed.result.events
        if type(event).__name__ == "Widened" and event.to_stage == stage
    }


def test_every_cell_gets_a_trial_after_two_weeks(replayed):
    assert list_moves(replayed, "trial") == {
        (f"{site} {window}", f"05-18 {hour}")
        for site in ("station", "campus")
        for window, hour in (("morning", 12), ("noon", 16), ("evening", 20))
    }


def test_five_cells_go_wide_after_four_weeks_and_the_campus_at_noon_does_not(replayed):
    assert list_moves(replayed, "wide") == {
        ("station morning", "06-15 12"),
        ("campus morning", "06-15 12"),
        ("station noon", "06-15 16"),
        ("station evening", "06-15 20"),
        ("campus evening", "06-15 20"),
    }
    kinds = {type(event).__name__ for event in replayed.result.events}
    assert not kinds & {"Narrowed", "Suspended", "GrantExpired"}


def test_where_the_model_goes_wide_it_sells_more_with_half_of_the_answers_differing(
    gains, agreements
):
    for cell in gains.keys() - {HELD}:
        assert gains[cell].lower > 0, cell
        assert 0.155 < gains[cell].gain < 0.225, cell
        assert 0.45 < agreements[cell] < 0.6, cell


def test_the_held_cell_agrees_most_and_sells_less(gains, agreements):
    assert max(agreements, key=agreements.get) == HELD
    assert agreements[HELD] == pytest.approx(0.84, abs=0.005)
    assert gains[HELD].gain < -0.02
    assert gains[HELD].upper < 0.05


def test_the_held_cells_true_loss_comes_from_hot_days_alone(held_cases, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import kiosks  # noqa: PLC0415 - a module beside the generator, importable from here on only

    skies = held_cases["attribute:sky"].to_list()
    answers = zip(skies, held_cases["model"], held_cases["human"], strict=True)
    losses = []
    for sky, *offers in answers:
        model, human = (kiosks.STUDENTS_TASTES[sky][kiosks.OFFERS.index(offer)] for offer in offers)
        losses.append(human - model)
        assert (model == human) == (sky != "hot")
    assert 5.5 < sum(losses) / len(losses) < 6.5


def test_rules_on_agreement_would_have_opened_the_held_cell(held_cases):
    agrees = (held_cases["model"] == held_cases["human"]).to_list()
    rates = [sum(agrees[:count]) / count for count in range(100, len(agrees))]
    blocks = [sum(agrees[i : i + 50]) >= 0.75 * 50 for i in range(0, len(agrees) - 49, 50)]
    assert max(rates[:300]) >= 0.75
    assert any(all(blocks[i : i + 3]) for i in range(8))
