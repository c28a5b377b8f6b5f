import gzip
import json
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from rollout.engine.evidence.frames import (
    RecordKind,
    build_cases_schema,
    build_decisions_schema,
    build_outcomes_schema,
    build_predictions_schema,
)
from rollout.engine.files.column_map import ColumnError, parse_column_flags
from rollout.engine.files.files import RecordPaths, read_record_files
from rollout.engine.files.mapped_rows import RecordError
from rollout.engine.files.parts import UNCLEAR_TEXT
from tests.engine.files.row_sums import adds_up

PREDICTIONS = """\
case_key,site,occurred_at,model_version,label,confidence,episode
c1,46.10,2027-05-03T14:05:09,v1,bear,0.9,e1
c2,46.10,2027-05-03T15:05:09,v1,no,0.8,e1
c3,creek,2027-05-03T23:05:09,v1,007,,
"""
DECISIONS = """\
case_key,reviewer,label,decided_at
c1,ana,bear,2027-05-03T15:00:00
c2,ana,no,2027-05-03T16:00:00
c3,bo,no,2027-05-04T08:00:00
"""


@pytest.fixture
def read(tmp_path):
    """Write the texts given into files and read these."""

    def reader(
        predictions=PREDICTIONS, decisions=DECISIONS, *, cases=None, outcomes=None, **options
    ):
        texts = {
            "predictions": predictions,
            "decisions": decisions,
            "cases": cases,
            "outcomes": outcomes,
        }
        suffix = options.pop("suffix", ".csv")
        paths = {
            kind: tmp_path / (kind + suffix) for kind, text in texts.items() if text is not None
        }
        for kind, path in paths.items():
            text = texts[kind]
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        defaults = {"levers": ["alarm"], "zones": {}, "default_zone": "Europe/Vienna"}
        return read_record_files(RecordPaths(**paths), **{**defaults, **options})

    return reader


def remarks(frame):
    return frame.select("records", "line", "column", "reason", "case_key").rows()


def test_the_frames_have_the_documented_columns(read):
    records = read()
    assert records.cases.schema == pl.Schema(build_cases_schema())
    assert records.predictions.schema == pl.Schema(build_predictions_schema(["alarm"]))
    assert records.decisions.schema == pl.Schema(build_decisions_schema(["alarm"]))
    assert records.outcomes.schema == pl.Schema(build_outcomes_schema(["alarm"]))
    assert records.levers == ("alarm",)


def test_sites_and_labels_stay_the_text_that_they_are(read):
    records = read()
    assert records.cases["site"].to_list() == ["46.10", "46.10", "creek"]
    assert records.predictions["value:alarm"].to_list() == ["bear", "no", "007"]
    assert records.predictions["confidence"].to_list() == [0.9, 0.8, None]
    assert records.rejected.height == records.notes.height == 0


def test_times_without_offset_are_in_the_zone_of_the_site(read):
    records = read(zones={"creek": "America/Denver"})
    assert records.cases["occurred_at"].to_list() == [
        datetime(2027, 5, 3, 12, 5, 9, tzinfo=UTC),
        datetime(2027, 5, 3, 13, 5, 9, tzinfo=UTC),
        datetime(2027, 5, 4, 5, 5, 9, tzinfo=UTC),
    ]
    assert records.decisions["at"].dt.hour().to_list() == [13, 14, 14]
    assert records.cases["hour_written"].to_list() == [14, 15, 23]


def test_every_row_read_is_accounted_for(read):
    counts = read(PREDICTIONS + "c1,46.10,2027-05-03T14:05:10,v1,bear,high,e1\n").row_counts
    assert list(counts) == [RecordKind.PREDICTIONS, RecordKind.DECISIONS]
    assert counts[RecordKind.PREDICTIONS].rows == 4
    assert counts[RecordKind.PREDICTIONS].used == 3
    assert counts[RecordKind.PREDICTIONS].rejected == {"bad-number": 1}
    assert counts[RecordKind.PREDICTIONS].notes == {"conflict": 1}
    assert all(adds_up(count) for count in counts.values())


@pytest.mark.slow
def test_any_order_of_rows_gives_the_same_records(read):
    header, *rows = PREDICTIONS.splitlines()
    records, shuffled = read(), read("\n".join([header, rows[2], rows[0], rows[1]]))
    for name in ("cases", "predictions", "decisions"):
        assert_frame_equal(getattr(records, name), getattr(shuffled, name), check_row_order=False)


def test_json_lines_say_the_same_as_csv(read):
    def lines(text):
        header, *rows = [line.split(",") for line in text.splitlines()]
        return "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows)

    records = read(lines(PREDICTIONS), lines(DECISIONS), suffix=".jsonl")
    for name in ("cases", "predictions", "decisions"):
        assert_frame_equal(getattr(records, name), getattr(read(), name))


def test_packed_files_say_the_same(read):
    packed = read(
        gzip.compress(PREDICTIONS.encode()), gzip.compress(DECISIONS.encode()), suffix=".csv.gz"
    )
    assert_frame_equal(packed.predictions, read().predictions)


def test_tab_separated_files_say_the_same(read):
    tabbed = read(PREDICTIONS.replace(",", "\t"), DECISIONS.replace(",", "\t"), suffix=".TSV")
    assert_frame_equal(tabbed.decisions, read().decisions)


def test_parquet_files_say_the_same(read, tmp_path):
    for kind, text in (("predictions", PREDICTIONS), ("decisions", DECISIONS)):
        frame = pl.read_csv(text.encode(), infer_schema=False)
        frame = frame.with_columns(pl.col("^(occurred|decided)_at$").str.to_datetime())
        frame.write_parquet(tmp_path / f"{kind}.parquet")
    sources = RecordPaths(tmp_path / "predictions.parquet", tmp_path / "decisions.parquet")
    records = read_record_files(sources, levers=["alarm"], zones={}, default_zone="Europe/Vienna")
    assert_frame_equal(records.cases, read().cases)
    assert_frame_equal(records.decisions, read().decisions)


def test_an_exact_repeat_is_a_duplicate_and_other_content_a_conflict(read):
    row = PREDICTIONS.splitlines()[1]
    records = read(PREDICTIONS + row + "0\n" + row.replace("0.9", "0.5") + "\n")
    assert remarks(records.rejected) == [
        ("predictions", 5, None, "duplicate", "c1"),
        ("predictions", 6, None, "conflict", "c1"),
    ]
    assert records.predictions.height == 3


def test_several_answers_of_a_version_without_times_are_all_set_aside(read):
    """As of the best classes of a case in any order: no row says which is the version's answer."""
    row = PREDICTIONS.splitlines()[1]
    records = read(PREDICTIONS + row.replace("bear", "no") + "\n" + row.replace("v1", "v2") + "\n")
    assert remarks(records.rejected) == [
        ("predictions", 2, None, "conflict", "c1"),
        ("predictions", 5, None, "conflict", "c1"),
    ]
    assert records.rejected["detail"].unique().item() == UNCLEAR_TEXT
    assert records.predictions.select("case_key", "version").rows()[-1] == ("c1", "v2")


TIMED = "case_key,site,occurred_at,model_version,label,confidence,predicted_at\n"


@pytest.mark.parametrize(
    ("hours", "used"),
    [
        ((14, 16), 14),  # c1 was decided at 15:00, so the second may know the answer
        ((12, 13, 14), 14),
        ((16, 17), 16),
        ((15,), 15),
        ((14, 14), None),
        ((13, 14, 14, 16), None),
    ],
)
@pytest.mark.parametrize("is_reversed", [False, True])
def test_of_several_predictions_the_last_before_the_first_decision_is_used(
    read, hours, used, is_reversed
):
    rows = [
        f"c1,46.10,2027-05-03T11:00:00,v1,{label},0.9,2027-05-03T{hour}:00:00"
        for hour, label in zip(hours, ("bear", "no", "007", "cub"), strict=False)
    ]
    rows = rows[::-1] if is_reversed else rows
    others = "".join(f"{row},\n" for row in list_plain_rows(PREDICTIONS)[1:])
    records = read(TIMED + "\n".join(rows) + "\n" + others)
    own = records.predictions.filter(case_key="c1")
    at = [] if used is None else [datetime(2027, 5, 3, used - 2, tzinfo=UTC)]  # Vienna
    assert own["at"].to_list() == at
    assert records.row_counts[RecordKind.PREDICTIONS].rejected == (
        {"conflict": len(hours) - len(at)} if len(hours) > len(at) else {}
    )


def list_plain_rows(text):
    """Return the rows of a text of predictions without their episode."""
    return [row.rpartition(",")[0] for row in text.splitlines()[1:]]


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" + PREDICTIONS.encode(), gzip.compress(PREDICTIONS.encode())]
)
def test_a_workbook_or_packed_file_is_called_so(read, content):
    with pytest.raises(RecordError, match="it is a workbook or an archive; save its sheet"):
        read(content)


def test_two_versions_of_one_case_are_two_predictions(read):
    records = read(PREDICTIONS + PREDICTIONS.splitlines()[1].replace("v1", "v2"))
    assert records.predictions["version"].to_list() == ["v1", "v1", "v1", "v2"]
    assert records.cases.height == 3


def test_several_labels_of_one_reviewer_are_all_set_aside(read):
    records = read(decisions=DECISIONS + "c1,ana,no,2027-05-03T15:00:00\nc1,bo,no,\n")
    assert remarks(records.rejected) == [
        ("decisions", 2, None, "several-labels", "c1"),
        ("decisions", 5, None, "several-labels", "c1"),
    ]
    assert records.decisions.filter(case_key="c1")["reviewer"].to_list() == ["bo"]


def test_one_reviewer_in_two_spellings_decides_a_case_once(read):
    records = read(decisions=DECISIONS + "c1,Ana,no,2027-05-03T15:00:00\n")
    assert [reason for *_, reason, _ in remarks(records.rejected)] == ["several-labels"] * 2
    records = read(decisions=DECISIONS.replace("c2,ana", "c2,Ana"))
    assert records.decisions["reviewer"].to_list() == ["ana", "Ana", "bo"]  # as sent


def test_a_repeat_among_several_labels_is_still_a_duplicate(read):
    row = DECISIONS.splitlines()[1]
    records = read(decisions=DECISIONS + row + "\n" + row.replace("bear", "no"))
    reasons = records.rejected.select("line", "reason").rows()
    assert reasons == [(2, "several-labels"), (5, "duplicate"), (6, "several-labels")]


def test_the_same_label_at_another_time_is_a_conflict_with_the_first(read):
    records = read(decisions=DECISIONS + "c1,ana,bear,2027-05-03T18:00:00\n")
    assert remarks(records.rejected) == [("decisions", 5, None, "conflict", "c1")]
    assert records.decisions["at"][0] == datetime(2027, 5, 3, 13, tzinfo=UTC)


def test_a_case_that_no_file_describes_waits(read):
    records = read(decisions=DECISIONS + "c9,ana,bear,\n")
    assert remarks(records.rejected) == [("decisions", 5, None, "no case yet", "c9")]


def test_a_decision_may_describe_a_case_without_a_prediction(read):
    decisions = "case_key,site,occurred_at,reviewer,label\nc9,dam,2027-05-03T10:00:00Z,ana,bear\n"
    records = read(decisions=decisions)
    assert records.cases.row(3, named=True)["site"] == "dam"
    assert records.rejected.height == 0


def test_the_cases_file_is_heard_first_and_contradictions_are_noted(read):
    cases = (
        "case_key,site,occurred_at,received_at,lens\n"
        "c2,46.10,2027-05-03T15:05:09,,wide\n"
        "c1,46.10,2027-05-03 12:05:09Z,2027-05-03T14:06:00,\n"
        "c3,creek,2027-05-04T00:00:00,,\n"
    )
    records = read(cases=cases)
    assert records.cases["case_key"].to_list() == ["c2", "c1", "c3"]
    assert records.cases["site"].to_list() == ["46.10", "46.10", "creek"]
    assert records.cases["received_at"][1] == datetime(2027, 5, 3, 12, 6, tzinfo=UTC)
    assert records.cases["episode"].to_list() == ["e1", "e1", None]
    assert records.cases["attribute:lens"].to_list() == ["wide", None, None]
    assert remarks(records.notes) == [
        ("predictions", 4, "occurred_at", "conflict", "c3"),
    ]
    assert records.predictions.height == 3


def test_a_cases_file_needs_a_site_and_names_each_case_once(read):
    rows = ("c1,46.10,", "c1,46.10,", "c1,46.10,2027-05-03T14:05:09", ",a,", "c4,,2027-05-03T14:05")
    cases = "\n".join(["case_key,site,occurred_at", *rows])
    records = read(cases=cases)
    assert records.rejected.select("line", "column", "reason").rows() == [
        (3, None, "duplicate"),
        (4, None, "conflict"),
        (5, "case_key", "missing-value"),
        (6, "site", "missing-value"),
    ]
    assert records.row_counts[RecordKind.CASES].used == 1
    assert adds_up(records.row_counts[RecordKind.CASES])


def test_a_row_that_cannot_be_read_still_describes_its_case(read):
    records = read(PREDICTIONS.replace("0.9", "97"))
    assert remarks(records.rejected) == [("predictions", 2, "confidence", "bad-number", "c1")]
    assert records.rejected["detail"][0] == "'97' is no number from 0 to 1"
    assert records.decisions.height == 3


def test_an_impossible_time_is_noted_in_each_file_and_the_case_kept(read):
    predictions = PREDICTIONS.replace("2027-05-03T14", "2019-02-29T14")
    decisions = "case_key,occurred_at,reviewer,label\nc1,2019-02-29T14:05:09,ana,bear\n"
    records = read(predictions, decisions)
    assert remarks(records.notes) == [
        ("predictions", 2, "occurred_at", "impossible-time", "c1"),
        ("decisions", 2, "occurred_at", "impossible-time", "c1"),
    ]
    case = records.cases.row(0, named=True)
    assert (case["occurred_at"], case["hour_written"]) == (None, 14)
    assert case["occurred_text"] == "2019-02-29T14:05:09"
    assert records.predictions.height == 3
    assert records.rejected.height == 0


def test_times_that_are_missing_or_unreadable_are_noted(read):
    records = read(PREDICTIONS.replace("2027-05-03T14:05:09", "").replace("23:05:09", "late"))
    assert remarks(records.notes) == [
        ("predictions", 2, "occurred_at", "no-time", "c1"),
        ("predictions", 4, "occurred_at", "unreadable-time", "c3"),
    ]
    assert records.cases["occurred_at"].is_null().to_list() == [True, False, True]


def test_a_records_own_time_that_cannot_be_read_sets_it_aside(read):
    records = read(decisions=DECISIONS.replace("2027-05-03T16", "2027-02-30T16"))
    assert remarks(records.rejected) == [("decisions", 3, "decided_at", "impossible-time", "c2")]


def test_a_change_of_clocks_is_noted_for_records_and_cases(read):
    predictions = PREDICTIONS.replace("2027-05-03T14:05", "2027-03-28T02:05")
    records = read(predictions, DECISIONS.replace("2027-05-03T16:00", "2027-10-31T02:30"))
    assert remarks(records.notes) == [
        ("predictions", 2, "occurred_at", "gap-time", "c1"),
        ("decisions", 3, "decided_at", "ambiguous-time", "c2"),
    ]


def test_a_prediction_without_an_answer_has_failed(read):
    records = read(PREDICTIONS.replace(",bear,", ",,"))
    assert records.predictions["value:alarm"].to_list() == [None, "no", "007"]
    assert records.row_counts[RecordKind.PREDICTIONS].notes == {"failed": 1}


def test_a_prediction_with_an_error_has_failed_whatever_it_says(read):
    header = "case_key,site,occurred_at,model_version,label,error,latency_ms,predicted_at\n"
    rows = "c1,a,2027-05-03T14:05:09,v1,bear,time-out,2000.5,2027-05-03T14:05:11\n"
    records = read(header + rows, DECISIONS.splitlines()[0] + "\n")
    row = records.predictions.row(0, named=True)
    assert (row["value:alarm"], row["error"], row["latency_ms"]) == (None, "time-out", 2000.5)
    assert row["at"] == datetime(2027, 5, 3, 12, 5, 11, tzinfo=UTC)
    assert records.row_counts[RecordKind.PREDICTIONS].notes == {"dropped-answer": 1, "failed": 1}


def test_a_decision_without_an_answer_is_unsure(read):
    decisions = (
        "case_key,reviewer,label,unsure,exposure,task_number\n"
        "c1,ana,,,Blind,0\n"
        "c2,ana,no,YES,assisted,1\n"
        "c3,bo,no,false,,\n"
    )
    records = read(decisions=decisions)
    assert records.decisions["unsure"].to_list() == [True, True, False]
    assert records.decisions["value:alarm"].to_list() == [None, None, "no"]
    assert records.decisions["exposure"].to_list() == ["blind", "assisted", "unknown"]
    assert records.decisions["seat"].to_list() == [0, 1, None]
    assert records.row_counts[RecordKind.DECISIONS].notes == {"dropped-answer": 1, "unsure": 2}


def test_a_decision_may_say_when_it_was_begun(read):
    decisions = (
        "case_key,reviewer,label,decided_at,started_at\n"
        "c1,ana,no,2027-05-03T08:00:30Z,2027-05-03T08:00:05Z\n"
        "c2,ana,no,2027-05-03T08:01:00Z,\n"
        "c3,ana,no,2027-05-03T08:01:00Z,soon\n"
    )
    records = read(decisions=decisions)
    spent = records.decisions["at"] - records.decisions["started_at"]
    assert spent.to_list() == [timedelta(seconds=25), None]
    assert records.rejected.select("line", "column", "reason").rows() == [
        (4, "started_at", "unreadable-time")
    ]
    assert records.attributes == read().attributes


def test_words_and_numbers_that_no_column_knows_are_set_aside(read):
    decisions = (
        "case_key,reviewer,label,unsure,exposure,task_number\n"
        "c1,ana,x,perhaps,,\nc2,ana,x,,double-blind,\nc3,ana,x,,,-1\nc3,,x,,,\n"
    )
    records = read(decisions=decisions)
    assert records.rejected.select("line", "column", "reason").rows() == [
        (2, "unsure", "bad-word"),
        (3, "exposure", "bad-word"),
        (4, "task_number", "bad-number"),
        (5, "reviewer", "missing-value"),
    ]


@pytest.mark.parametrize("text", ["nan", "NULL", "-", " n/a "])
def test_a_confidence_that_stands_for_no_number_is_missing(read, text):
    predictions = PREDICTIONS.replace("0.9", f'"{text}"')
    records = read(predictions)
    assert records.predictions["confidence"][0] is None
    assert records.rejected.is_empty()
    assert records.notes.select("column", "reason").rows() == [("confidence", "placeholder")]


@pytest.mark.parametrize("number", ["inf", "-0.1", "1.01", "0,5", "high"])
def test_a_confidence_is_a_share(read, number):
    predictions = PREDICTIONS.replace("0.9", f'"{number}"')
    assert read(predictions).rejected["reason"].to_list() == ["bad-number"]


def test_outcomes_name_a_value_or_a_harm(read):
    outcomes = (
        "case_key,label,harm,outcome_at\n"
        "c1,bear,,2027-05-05T10:00:00Z\nc2,,camper hurt,\nc3,,,\nc9,bear,,\nc1,no,,\n"
    )
    records = read(outcomes=outcomes)
    assert records.outcomes["value:alarm"].to_list() == ["bear", None]
    assert records.outcomes["harm"].to_list() == [None, "camper hurt"]
    assert records.rejected.select("line", "reason").rows() == [
        (4, "missing-value"),
        (5, "no case yet"),
        (6, "conflict"),
    ]


def test_several_levers_answer_under_their_ids(read):
    predictions = "case_key,site,occurred_at,model_version,crop,water\nc1,a,,v1,7,\n"
    decisions = "case_key,reviewer,crop,water\nc1,ana,8,\nc1,ana,8,2\n"
    records = read(predictions, decisions, levers=["crop", "water"])
    assert records.levers == ("crop", "water")
    assert records.predictions.select("value:crop", "value:water").row(0) == ("7", None)
    assert records.rejected["reason"].to_list() == ["several-labels", "several-labels"]


def test_a_column_map_renames_and_fills_in(read):
    predictions = "image,place,when,said,cam\nc1,a,2027-05-03T14:05:09,bear,left\n"
    flags = [
        *("predictions.case_key=image", "predictions.site=place", "predictions.occurred_at=when"),
        *("predictions.label=said", "predictions.model_version:=v7"),
    ]
    columns = parse_column_flags(flags, levers=["alarm"])
    records = read(predictions, columns=columns)
    assert records.predictions["version"].to_list() == ["v7"]
    assert records.attributes == ("cam",)
    assert records.cases["attribute:cam"].to_list() == ["left"]


def test_faults_name_the_column_as_the_file_does(read):
    columns = parse_column_flags(["decisions.decided_at=when"], levers=["alarm"])
    records = read(decisions="case_key,reviewer,label,when\nc1,ana,no,soon\n", columns=columns)
    assert records.rejected["column"].to_list() == ["when"]


def test_columns_that_nothing_uses_are_noted(read):
    columns = parse_column_flags(["predictions.attributes=episode"], levers=["alarm"])
    predictions = PREDICTIONS.replace(",confidence,", ",sureness,")
    records = read(predictions, columns=columns)
    assert remarks(records.notes) == [("predictions", None, "sureness", "ignored", None)]


def test_an_attribute_that_varies_within_a_case_is_noted_once(read):
    header, *rows = PREDICTIONS.splitlines()
    both = [f"{row},{version}" for version in ("new", "old") for row in rows]
    predictions = "\n".join([header + ",build", *(r.replace("v1", r[-3:]) for r in both)])
    records = read(predictions)
    assert records.cases["attribute:build"].to_list() == ["new", "new", "new"]
    assert remarks(records.notes) == [("predictions", 5, "build", "varies", "c1")]
    assert "in 3 rows" in records.notes["detail"][0]


def test_rows_that_cannot_be_taken_apart_are_set_aside_with_their_lines(read):
    broken = PREDICTIONS.encode() + b'c4,creek\nc5,creek,"x,v1,bear,,\nc\xff,a,b,c,d,e,f\n'
    records = read(broken)
    assert remarks(records.rejected) == [
        ("predictions", 5, None, "field-count", None),
        ("predictions", 6, None, "bad-quoting", None),
        ("predictions", 7, None, "bad-encoding", None),
    ]
    assert records.predictions.height == 3


def test_strict_reading_stops_at_the_first_thing_that_cannot_be_read(read):
    predictions = PREDICTIONS.replace("0.8", "high") + "c4,creek\n"
    with pytest.raises(RecordError) as caught:
        read(predictions, strict=True)
    fault = caught.value
    assert (fault.file, fault.line, fault.column) == ("predictions.csv", 3, "confidence")
    assert str(fault) == (
        "predictions.csv:3: confidence: bad-number: 'high' is no number from 0 to 1"
    )


def test_strict_reading_stops_at_an_impossible_time(read):
    with pytest.raises(RecordError, match=r"predictions\.csv:2: occurred_at: impossible-time"):
        read(PREDICTIONS.replace("2027-05-03T14", "2019-02-29T14"), strict=True)


def test_strict_reading_takes_repeats_and_late_cases(read):
    again = DECISIONS + DECISIONS.splitlines()[1] + "\nc9,ana,bear,\n"
    records = read(decisions=again, strict=True)
    assert records.rejected["reason"].to_list() == ["duplicate", "no case yet"]


def test_without_a_site_anywhere_an_error_is_raised(read):
    predictions = "case_key,model_version,label\nc1,v1,bear\n"
    with pytest.raises(ColumnError) as caught:
        read(predictions)
    assert len(caught.value.faults) == 2
    assert "none of predictions.csv, decisions.csv has a column 'site'" in caught.value.faults[0]


def test_empty_files_give_empty_records(read):
    records = read("", "", suffix=".ndjson")
    assert records.cases.schema == pl.Schema(build_cases_schema())
    assert records.predictions.schema == pl.Schema(build_predictions_schema(["alarm"]))
    assert all(count.rows == 0 and adds_up(count) for count in records.row_counts.values())


def test_headers_alone_give_empty_records(read):
    records = read(PREDICTIONS.splitlines()[0], DECISIONS.splitlines()[0])
    assert records.cases.height == records.decisions.height == 0


@pytest.mark.parametrize("suffix", [".xlsx", ".csv.zip", ".parquet.gz", ".json", ""])
def test_an_unknown_suffix_is_refused(read, suffix):
    with pytest.raises(RecordError, match=r"files end in \.csv, \.tsv"):
        read(suffix=suffix)


def test_a_damaged_packed_file_is_refused(read):
    packed = gzip.compress(PREDICTIONS.encode())
    for content in (packed[:-9], packed[:40] + b"\x00\x00" + packed[42:], b"plain"):
        with pytest.raises(RecordError, match=r"predictions\.csv\.gz: damaged"):
            read(content, content, suffix=".csv.gz")


def test_progress_is_reported_for_each_file(read):
    told = []
    read(progress=lambda *step: told.append(step))
    size = len(PREDICTIONS)
    assert told[:2] == [("predictions.csv", 0, size), ("predictions.csv", size, size)]
    assert {file for file, _, _ in told} == {"predictions.csv", "decisions.csv"}


def test_a_column_may_have_any_name(read):
    records = read(PREDICTIONS.replace(",episode", ",^site$").replace(",confidence", ",*"))
    assert records.attributes == ("*", "^site$")
    assert records.cases.get_column("attribute:^site$").to_list() == ["e1", "e1", None]


def test_objects_without_a_key_are_rows_all_the_same(read):
    with pytest.raises(ColumnError, match="found: no columns"):
        read("{}", "{}", suffix=".jsonl")
    predictions = (
        '{"case_key": "c1", "site": "a", "occurred_at": "", "model_version": 1, "label": 0}'
    )
    records = read(predictions + "\n{}\nnull", "[]", suffix=".jsonl")
    reasons = records.rejected.select("records", "line", "reason").rows()
    assert reasons == [
        ("predictions", 2, "missing-value"),
        ("predictions", 3, "bad-json"),
        ("decisions", 1, "bad-json"),
    ]
    assert all(adds_up(count) for count in records.row_counts.values())
