"""The records of data/camera-traps with their oddities; golden figures from data/README.md."""

from pathlib import Path

import polars as pl
import pytest

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.files import RecordPaths, read_record_files
from tests.engine.files.row_sums import adds_up

FOLDER = Path(__file__).parents[4] / "shared" / "data" / "camera-traps"

pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="needs the records in ../shared/data/camera-traps"
)

IMPOSSIBLE = {f"32.1_droite_{number}.JPG" for number in (1497, 1619, 1986, 102)}
SITES = {"15.1", "15.2", "22.1", "22.2", "32.1", "36.1", "36.2", "44.1", "46.1", "46.2", "59.1"}


@pytest.fixture(scope="module")
def records():
    sources = RecordPaths(FOLDER / "predictions.csv", FOLDER / "decisions.csv")
    return read_record_files(sources, levers=["species"], zones={}, default_zone="Europe/Paris")


def test_all_rows_are_accounted_for(records):
    predictions, decisions = (
        records.row_counts[RecordKind.PREDICTIONS],
        records.row_counts[RecordKind.DECISIONS],
    )
    assert (predictions.rows, predictions.used, predictions.rejected) == (16_435, 16_435, {})
    assert (decisions.rows, decisions.rejected["duplicate"]) == (23_068, 3)
    assert adds_up(predictions)
    assert adds_up(decisions)


def test_the_cases_are_those_of_both_files(records):
    assert records.cases.height == 21_458
    assert records.predictions["case_key"].n_unique() == 16_435
    several = records.rejected.filter(reason="several-labels")["case_key"].n_unique()
    assert several == 1_607
    assert records.decisions["case_key"].n_unique() == records.decisions.height == 19_851


def test_one_distinct_human_label_is_left_for_the_golden_number_of_pairs(records):
    pairs = records.predictions.join(records.decisions, on="case_key")
    agreed = pairs.filter(pl.col("value:species") == pl.col("value:species_right"))
    assert (pairs.height, agreed.height) == (14_829, 9_958)


def test_by_the_hour_as_written_day_and_night_are_the_golden_ones(records):
    cases = records.cases.select("case_key", day=pl.col("hour_written").is_between(6, 17))
    pairs = records.predictions.join(records.decisions, on="case_key").join(cases, on="case_key")
    assert pairs.filter("day").height == 11_505
    assert pairs.filter(~pl.col("day")).height == 3_324


def test_the_four_impossible_times_are_noted_in_both_files_and_kept(records):
    impossible = records.notes.filter(reason="impossible-time")
    for kind in (RecordKind.PREDICTIONS, RecordKind.DECISIONS):
        noted = impossible.filter(records=kind.value)
        assert set(noted["case_key"]) == IMPOSSIBLE
        assert noted.height == 4
    cases = records.cases.filter(pl.col("occurred_at").is_null())
    assert set(cases["case_key"]) == IMPOSSIBLE
    assert cases["hour_written"].null_count() == 0
    assert set(records.predictions["case_key"]) >= IMPOSSIBLE


def test_sites_are_text_and_cameras_are_attributes(records):
    assert set(records.cases["site"]) == SITES
    assert records.attributes == ("camera", "model")
    assert set(records.cases["attribute:camera"]) == {"left", "right"}


def test_no_time_falls_in_a_spring_gap_and_one_case_in_an_autumn_hour(records):
    doubtful = records.notes.filter(pl.col("reason").is_in(["gap-time", "ambiguous-time"]))
    assert set(doubtful["reason"]) == {"ambiguous-time"}
    assert set(doubtful["case_key"]) == {"46.2_droite_758.JPG"}


def test_the_exposure_is_unknown(records):
    assert set(records.decisions["exposure"]) == {"unknown"}
    assert records.predictions["confidence"].null_count() == 16_435
