"""The mask door's story: takeovers, a harm that nobody saw, a cell that stays held.

Seed 8 was chosen as a middling one of the seeds 0 to 9. In all ten the evening at the garden door
is never proposed, v2 takes over both doors by day from 14 to 24 April and is autonomous at the main
entrance in the evening by 24 April, and the harm narrows the main entrance on 6 May. In seven v2
takes over the garden door from an autonomous v1, in the others from a supervised one; in nine v1
never opens an evening. Dates below are those of seed 8 and may move by four days.
"""

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from rollout.kernel.calendar.instants import Cell

pytestmark = pytest.mark.simulation

FOLDER = Path(__file__).parents[2] / "examples" / "mask-door"
RECORDS = FOLDER / "records"
EXAMPLE = tomllib.loads((FOLDER / "example.toml").read_text(encoding="utf-8"))
MAIN_DAY, MAIN_EVENING = Cell("main-entrance", "by-day"), Cell("main-entrance", "evening")
GARDEN_DAY, GARDEN_EVENING = Cell("garden-door", "by-day"), Cell("garden-door", "evening")
BROKEN_CLOSER = datetime(2026, 5, 6, tzinfo=UTC)
HOLIDAYS = {date(2026, 4, 6), date(2026, 5, 1), date(2026, 5, 8), date(2026, 5, 14)}
COSTS = {
    ("mask", "no-mask"): 10,
    ("mask", "nobody"): 10,
    ("no-mask", "mask"): 1,
    ("nobody", "mask"): 1,
}


@pytest.fixture(scope="module", name="replayed")
def replay_shipped_records():
    return replay_files(build_replay_request(find_example("mask-door")))


@pytest.fixture(scope="module", name="events")
def list_events(replayed):
    return replayed.result.events


@pytest.fixture(scope="module", name="answers")
def read_answers():
    """Each version's answer to each picture that a porter judged, with the light and the cost."""
    tables = [pl.read_csv(RECORDS / f"{n}.csv.gz") for n in ("cases", "predictions", "decisions")]
    cases, predictions, decisions = tables
    decided = decisions.drop_nulls("label").select("case_key", right="label")
    costs = [{"label": did, "right": right, "cost": cost} for (did, right), cost in COSTS.items()]
    return (
        predictions.join(decided, on="case_key")
        .join(cases, on="case_key")
        .join(pl.DataFrame(costs), on=["label", "right"], how="left")
        .with_columns(pl.col("cost").fill_null(0), agrees=pl.col("label") == pl.col("right"))
    )


def moves(events, cell):
    """Return (kind, version, stage, date) of each change of a cell's stage."""
    kinds = {"Widened", "TakenOver", "Narrowed", "Suspended", "GrantExpired"}
    return [
        (type(event).__name__, event.version, getattr(event, "to_stage", ""), event.at.date())
        for event in events
        if type(event).__name__ in kinds and event.cell == cell
    ]


def is_near(day, month, number, days=4):
    return abs(day - date(2026, month, number)) <= timedelta(days=days)


def test_the_evening_at_the_garden_door_is_never_proposed(events):
    place = EXAMPLE["held"]
    assert Cell(place["site"], place["window"]) == GARDEN_EVENING
    assert GARDEN_EVENING not in {getattr(event, "cell", None) for event in raised(events)}
    assert moves(events, GARDEN_EVENING) == []
    assert len({event.cell for event in raised(events)}) == 3


def raised(events):
    return [event for event in events if type(event).__name__ == "ProposalRaised"]


def test_against_the_sun_both_versions_unlock_for_bare_faces_and_are_sure(answers):
    bare = answers.filter(light="low-sun", right="no-mask")
    for version, recall, share_of_sure in (("v1", 0.65, 0.7), ("v2", 0.75, 0.7)):
        own = bare.filter(model_version=version)
        assert own["agrees"].mean() < recall
        wrong = own.filter(~pl.col("agrees"))
        assert (wrong["confidence"] >= 0.9).mean() > share_of_sure
    clouds = answers.filter(light="clouds", right="no-mask", model_version="v1")
    assert clouds["agrees"].mean() > 0.9


def test_by_day_v2_takes_both_doors_over_at_the_stage_that_v1_held(events):
    for cell, month, day in ((MAIN_DAY, 4, 17), (GARDEN_DAY, 4, 23)):
        first, second, takeover = moves(events, cell)[:3]
        assert [first[:3], second[:3], takeover[:3]] == [
            ("Widened", "v1", "supervised"),
            ("Widened", "v1", "autonomous"),
            ("TakenOver", "v2", "autonomous"),
        ]
        assert is_near(first[3], 3, 25)
        assert is_near(second[3], 4, 3)
        assert is_near(takeover[3], month, day)


def test_the_page_has_the_days_of_the_takeovers(events):
    days = {
        event.cell: event.at.astimezone(ZoneInfo("Europe/Paris"))
        for event in events
        if type(event).__name__ == "TakenOver"
    }
    main, garden = days[MAIN_DAY], days[GARDEN_DAY]
    text = " ".join((FOLDER / "README.md").read_text(encoding="utf-8").split())
    assert (
        f"replaces it at the main entrance on {main.day} {main:%B} and at the garden door"
        f" on {garden.day} {garden:%B}."
    ) in text


def test_under_lamps_v1_never_opens_and_v2_does(events, answers):
    supervised, autonomous, narrowed = moves(events, MAIN_EVENING)
    assert supervised[:3] == ("Widened", "v2", "supervised")
    assert autonomous[:3] == ("Widened", "v2", "autonomous")
    assert is_near(supervised[3], 4, 15)
    assert is_near(autonomous[3], 4, 24)
    assert narrowed[0] == "Narrowed"
    lamps = answers.filter(light="lamps")
    v1, v2 = (lamps.filter(model_version=version)["cost"].mean() for version in ("v1", "v2"))
    assert v1 > 2 * v2


def test_agreement_hides_what_the_costs_show(answers):
    """Under lamps v1 agrees in 19 pictures of 20, and costs over twice as much as by day."""
    v1 = answers.filter(model_version="v1")
    by_light = {light: rows for (light,), rows in v1.group_by("light")}
    assert by_light["lamps"]["agrees"].mean() > 0.93
    assert by_light["daylight"]["agrees"].mean() - by_light["lamps"]["agrees"].mean() < 0.05
    assert by_light["lamps"]["cost"].mean() > 2 * by_light["daylight"]["cost"].mean()


def test_tailgating_narrows_the_main_entrance_alone_on_the_evening_of_its_count(events):
    narrowed = [event for event in events if type(event).__name__ == "Narrowed"]
    assert {event.cell for event in narrowed} == {MAIN_DAY, MAIN_EVENING}
    assert {event.at for event in narrowed} == {BROKEN_CLOSER.replace(hour=20)}
    assert {event.to_stage for event in narrowed} == {"shadow"}
    assert moves(events, GARDEN_DAY)[-1][:3] == ("TakenOver", "v2", "autonomous")


def test_on_the_day_of_the_tailgating_the_answers_are_as_good_as_before(answers):
    main = answers.filter(site="main-entrance", model_version="v2")
    day = pl.col("occurred_at").str.starts_with("2026-05-06")
    today, before = (main.filter(rule)["agrees"].mean() for rule in (day, ~day))
    assert today > 0.95
    assert abs(today - before) < 0.02


def test_after_the_harm_v1_is_proposed_at_once(events):
    """No answer was wrong, so only the approver can ask whether the door is mended."""
    (proposal,) = [event for event in raised(events) if event.at.date() == BROKEN_CLOSER.date()]
    assert (proposal.cell, proposal.version) == (MAIN_DAY, "v1")


def test_a_proposal_is_open_where_the_live_demo_begins(events):
    ages = [EXAMPLE["serve_at"] - event.at for event in raised(events)]
    assert [age for age in ages if timedelta(0) < age < timedelta(hours=60)]


def test_on_holidays_and_after_closing_people_decide(replayed):
    placed = replayed.history.cases
    times = placed["occurred_at"].dt.convert_time_zone("Europe/Paris").dt
    for rule in (times.date().is_in(list(HOLIDAYS)), times.hour() >= 20):
        closed = placed.filter(rule)
        assert closed.height > 40
        assert set(closed["window"]) == {"other"}
    assert "other" not in {cell.window for cell in replayed.result.stage_histories}


def test_guards_on_rates_never_narrow_a_cell(events):
    """Override, cost and recall stay quiet: v1 is never worse than what it was opened for."""
    assert not [event for event in events if type(event).__name__ in {"Suspended", "GrantExpired"}]
