"""Files as people have them are read right, or refused with the option that decides."""

from datetime import timedelta
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.engine.files.files import RecordPaths
from rollout.features.replay.requests import ReplayRequest, read_request_records
from rollout.kernel.policy_files.reader import parse_policy
from tests.features.policies.messy_files import Variant, write_files

EARLY = {"step": timedelta(hours=4)}  # days 1 to 11: they can be months too
MAPS = ("case_key=Image", "label=Species")
SPOKEN = tuple(f"--map={kind}.{m}" for kind in ("predictions", "decisions") for m in MAPS)
REVIEWER = "--map=decisions.reviewer=Annotator"
FORMAL = (
    *("--map=predictions.label=pred_label", "--map=decisions.label=pred_label"),
    *("--map=predictions.confidence=Score", "--map=decisions.decided_at=dec_time"),
)
GERMAN = {"separator": ";", "decimal": ",", "date": "dots", "encoding": "cp1252"}

VARIANTS = [
    Variant("clean"),
    Variant("UTF-8 with a mark", encoding="utf-8-sig"),
    Variant("Latin-1", encoding="latin-1"),
    Variant("UTF-16", encoding="utf-16"),
    Variant("UTF-16 without a mark", encoding="utf-16-le"),
    Variant("UTF-16, big end first", encoding="utf-16-be"),
    Variant("Mac Roman", "--encoding", encoding="mac-roman"),
    Variant("Mac Roman, told", options=("--encoding=mac-roman",), encoding="mac-roman"),
    Variant("semicolons", separator=";"),
    Variant("tabs in a .csv", separator="\t"),
    Variant("bars", separator="|"),
    Variant("semicolons and decimal commas", separator=";", decimal=","),
    Variant("decimal commas in quotes", decimal=","),
    Variant("spaces in times", date="space"),
    Variant("day first, dots", date="dots"),
    Variant("day first, slashes", date="slashes"),
    Variant("month first, 12 hours", date="american"),
    Variant("year first", date="year"),
    Variant("with UTC", date="bigquery"),
    Variant("Unix seconds", date="seconds"),
    Variant("Unix milliseconds", date="milliseconds"),
    Variant("01/02", "--date-format day-first", date="slashes", **EARLY),
    Variant("01/02, told", options=("--date-format=day-first",), date="slashes", **EARLY),
    Variant("1/2 PM", "--date-format month-first", date="american", **EARLY),
    Variant("1/2 PM, told", options=("--date-format=month-first",), date="american", **EARLY),
    Variant("names of months", "--date-format", date="month names"),
    Variant("names, told", options=("--date-format=%d-%b-%Y %H:%M:%S",), date="month names"),
    Variant("two-digit years", "--date-format", date="two-digit years"),
    Variant(
        "two-digit years, told",
        options=("--date-format=%d.%m.%y %H:%M:%S",),
        date="two-digit years",
    ),
    Variant("percent", confidence="percent"),
    Variant("percent signs", confidence="sign"),
    Variant("percent with commas", confidence="percent", decimal=",", separator=";"),
    Variant("one confidence of 40", "--no-percent", confidence="outlier"),
    Variant("0 or 1", "--percent", confidence="certain"),
    Variant("unsure", unsure="unsure"),
    Variant("Unknown", unsure="Unknown"),
    Variant("an own word, told", options=("--unsure=keine Ahnung",), unsure="keine Ahnung"),
    Variant("German Excel", **GERMAN),
    Variant("German Excel, percent, unsure", **GERMAN, confidence="percent", unsure="n/a"),
    Variant("American Excel", encoding="utf-16", separator="\t", date="american"),
    Variant("other columns", "did you mean --map", columns="spoken"),
    Variant("other columns, told", options=(*SPOKEN, REVIEWER), columns="spoken"),
    Variant("formal columns", "did you mean --map predictions.label=pred_label", columns="formal"),
    Variant(
        "formal columns, Latin-1, semicolons",
        options=FORMAL,
        columns="formal",
        encoding="latin-1",
        separator=";",
    ),
    Variant("several labels", "holds several labels", several=True),
]


def run_init(folder, variant):
    folder.mkdir()
    paths = write_files(folder, variant)
    command = ["init", *map(str, paths), *variant.options]
    return CliRunner().invoke(app, command), RecordPaths(*paths)


def read_as_replay_does(text, sources):
    return read_request_records(ReplayRequest(Path(), sources), parse_policy(text))


def test_a_flag_overrides_the_columns_that_the_policy_keeps(tmp_path):
    result, sources = run_init(tmp_path / "a", Variant("a", columns="formal", options=FORMAL))
    request = ReplayRequest(
        Path(), sources, column_mappings=("predictions.confidence:=0.5",), strict=True
    )
    records = read_request_records(request, parse_policy(result.stdout))
    assert records.predictions["confidence"].unique().to_list() == [0.5]
    assert records.decisions["at"].null_count() == 0


@pytest.fixture
def expected(tmp_path):
    """Return a function that reads the clean form of a variant's records."""

    def read(variant):
        result, sources = run_init(tmp_path / "clean", Variant("clean", step=variant.step))
        assert "import:" not in result.stdout
        records = read_as_replay_does(result.stdout, sources)
        assert records.predictions["confidence"].to_list()[:2] == [0.401, 0.408]
        assert records.decisions["unsure"].sum() == 7
        return records

    return read


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_messy_file_is_read_right_or_refused(tmp_path, expected, variant):
    result, sources = run_init(tmp_path / "messy", variant)
    if variant.refused:
        assert result.exit_code != 0
        assert result.stdout == ""
        assert variant.refused in result.stderr
        return
    assert result.exit_code == 0, result.stderr
    records, clean = read_as_replay_does(result.stdout, sources), expected(variant)
    for name in ("cases", "predictions", "decisions"):
        frame, clean_frame = getattr(records, name), getattr(clean, name)
        written = ["occurred_text"] if name == "cases" else []
        assert_frame_equal(frame.drop(written), clean_frame.drop(written), check_exact=True)
    assert records.rejected.height == 0
