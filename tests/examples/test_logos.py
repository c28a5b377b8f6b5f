"""The logos' story: a human ceiling, cleaned labels, a logo that nobody listed.

Seed 6 was chosen as a middling one of the seeds 0 to 9. In all ten v1 opens nothing, v2 opens the
three other cells to supervised by 3 March and to autonomous by 23 March, and the arena at weekends
is never proposed. Dates below are those of seed 6 and may move by four days; over the ten seeds
they spread by up to two weeks.
"""

import csv
import json
import re
import statistics
import tomllib
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest
from scipy import stats

from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from rollout.kernel.calendar.instants import Cell

pytestmark = pytest.mark.simulation

FOLDER = Path(__file__).parents[2] / "examples" / "logos"
RECORDS = FOLDER / "records"
EXAMPLE = tomllib.loads((FOLDER / "example.toml").read_text(encoding="utf-8"))
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ABOUT = json.loads((RECORDS / "about.json").read_text(encoding="utf-8"))
GUESTS_SINCE = "2026-02-21"
THRESHOLD = 0.8
HELD = Cell("arena", "weekend")


@pytest.fixture(scope="module", name="replayed")
def replay_shipped_records():
    return replay_files(build_replay_request(find_example("logos")))


@pytest.fixture(scope="module", name="tables")
def read_tables():
    return {
        name: pl.read_csv(RECORDS / f"{name}.csv.gz")
        for name in ("cases", "predictions", "decisions", "outcomes")
    }


@pytest.fixture(scope="module", name="answers")
def join_answers(tables):
    """Each version's set for each picture, with the first tagger's set and the right one."""
    first = tables["decisions"].filter(pl.col("task_number") == 1).drop_nulls("label")
    day = (
        pl.col("occurred_at")
        .str.to_datetime(time_zone="UTC")
        .dt.convert_time_zone("Europe/Amsterdam")
    )
    return (
        tables["predictions"]
        .join(tables["cases"], on="case_key")
        .join(first.select("case_key", tagged="label"), on="case_key", how="left")
        .join(tables["outcomes"].select("case_key", right="label"), on="case_key")
        .with_columns(
            weekend=day.dt.weekday() >= 6,
            agrees=pl.col("label") == pl.col("tagged"),
            is_right=pl.col("label") == pl.col("right"),
        )
    )


def raised(replayed):
    return [event for event in replayed.result.events if type(event).__name__ == "ProposalRaised"]


def test_the_arena_at_weekends_is_never_proposed(replayed):
    assert Cell(EXAMPLE["held"]["site"], EXAMPLE["held"]["window"]) == HELD
    cells = {event.cell for event in raised(replayed)}
    assert cells == set(replayed.result.stage_histories) - {HELD}
    assert len(cells) == 3


def test_v1_opens_nothing_as_it_agrees_too_rarely_everywhere(replayed, answers):
    assert {event.version for event in raised(replayed)} == {"v2"}
    v1 = answers.filter(model_version="v1")
    for _, rows in v1.group_by("site", "weekend"):
        assert rows["agrees"].mean() < THRESHOLD - 0.03


def test_v2_opens_the_other_cells_and_none_is_narrowed(replayed):
    narrowing = {"Narrowed", "TakenOver", "Suspended", "GrantExpired"}
    assert not [event for event in replayed.result.events if type(event).__name__ in narrowing]
    moves = {
        (str(event.cell), event.to_stage): event.at.date()
        for event in replayed.result.events
        if type(event).__name__ == "Widened"
    }
    expected = {
        ("stadium · weekday", "supervised"): date(2026, 2, 19),
        ("arena · weekday", "supervised"): date(2026, 2, 21),
        ("stadium · weekend", "supervised"): date(2026, 2, 24),
        ("arena · weekday", "autonomous"): date(2026, 3, 4),
        ("stadium · weekday", "autonomous"): date(2026, 3, 4),
        ("stadium · weekend", "autonomous"): date(2026, 3, 16),
    }
    assert set(moves) == set(expected)
    assert all(abs(moves[key] - expected[key]) <= timedelta(days=4) for key in expected)


def test_two_taggers_agree_in_nine_pictures_of_ten_and_v2_stays_below(tables, answers):
    decisions = tables["decisions"].drop_nulls("label")
    first, second = (decisions.filter(pl.col("task_number") == number) for number in (1, 2))
    pairs = first.join(second, on="case_key")
    ceiling = (pairs["label"] == pairs["label_right"]).mean()
    assert pairs.height > 1_000
    assert 0.87 < ceiling < 0.93
    home = answers.filter(model_version="v2", match="home")
    assert THRESHOLD + 0.03 < home["agrees"].mean() < ceiling


def test_the_held_cell_was_good_until_the_guests_came(answers):
    here = answers.filter(pl.col("weekend"), site="arena", model_version="v2")
    before = here.filter(pl.col("occurred_at") < GUESTS_SINCE)
    assert before.height > 100
    assert before["agrees"].mean() > THRESHOLD
    assert here.filter(pl.col("occurred_at") >= GUESTS_SINCE)["agrees"].mean() < 0.65


def test_taggers_say_other_where_the_versions_name_a_listed_logo_and_are_less_sure(answers):
    for version in ("v1", "v2"):
        own = answers.filter(model_version=version)
        guests, home = own.filter(match="guests"), own.filter(match="home")
        assert guests.drop_nulls("tagged")["tagged"].str.contains("other").mean() > 0.9
        assert not own["label"].str.contains("other").any()
        assert guests["is_right"].mean() == 0
        assert guests["confidence"].mean() < home["confidence"].mean() - 0.15


def test_cleaning_raises_the_share_of_right_pictures_as_about_json_says(answers):
    home = answers.filter(match="home", model_version="v2")
    keys = home["case_key"].to_list()
    shares = {
        version: 100
        * answers.filter(pl.col("case_key").is_in(keys), model_version=version)["is_right"].mean()
        for version in ("v1", "v2")
    }
    for version, share in shares.items():
        assert share == pytest.approx(ABOUT[f"{version}_percent_right"], abs=2)
    assert shares["v2"] > shares["v1"] + 10
    assert 10 * ABOUT["v2_wrong_labels"] < ABOUT["v1_wrong_labels"]


def format_interval(values, digits):
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return tuple(f"{figure:.{digits}f}" for figure in (mean, mean - half, mean + half))


def test_the_table_of_ten_seeds_is_computed_from_their_rows():
    rows = list(csv.DictReader((FOLDER / "seeds.csv").read_text(encoding="utf-8").splitlines()))
    assert [int(row["seed"]) for row in rows] == list(range(10))
    right = [[float(row[f"{v}_percent_right"]) for row in rows] for v in ("v1", "v2")]
    gains = [after - before for before, after in zip(*right, strict=True)]
    wrong = [[float(row[f"{v}_wrong_labels"]) for row in rows] for v in ("v1", "v2")]
    shares, labels = re.findall(r"^\| (?:right|wrong training labels) \|.*$", README, re.MULTILINE)
    pattern = r"([\d.]+)[^\[|]*\[([\d.]+), ([\d.]+)\]"
    assert re.findall(pattern, shares) == [format_interval(it, 1) for it in (*right, gains)]
    assert re.findall(pattern, labels) == [format_interval(it, 0) for it in wrong]
    (shipped,) = [row for row in rows if int(row["seed"]) == EXAMPLE["seed"]]
    assert {name: str(figure) for name, figure in ABOUT.items()} == shipped


def test_a_proposal_is_open_where_the_live_demo_begins(replayed):
    ages = [EXAMPLE["serve_at"] - event.at for event in raised(replayed)]
    assert [age for age in ages if timedelta(0) < age < timedelta(hours=60)]
