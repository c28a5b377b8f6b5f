import pytest

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.column_map import (
    ColumnError,
    ColumnMap,
    FileColumns,
    arrange_columns,
    parse_column_flags,
    parse_column_map,
    read_column_map,
)

LEVERS = ["alarm"]
FOUND = ["case_key", "site", "occurred_at", "model_version", "label"]


def faults_of(text, levers=LEVERS):
    with pytest.raises(ColumnError) as caught:
        parse_column_map(text, source="map.yaml", levers=levers)
    return caught.value.faults


def test_an_empty_map_means_the_default_names():
    assert parse_column_map("", source="map.yaml", levers=LEVERS) == ColumnMap()


def test_every_scalar_of_a_map_is_text():
    text = "decisions:\n  label: no\n  reviewer: {value: 007}\n"
    columns = parse_column_map(text, source="map.yaml", levers=LEVERS).get_file(
        RecordKind.DECISIONS
    )
    assert columns.columns == {"value:alarm": "no"}
    assert columns.constants == {"reviewer": "007"}


def test_attributes_are_a_list_or_a_mapping():
    text = "predictions: {attributes: [cam]}\ndecisions: {attributes: {camera: cam}}"
    columns = parse_column_map(text, source="map.yaml", levers=LEVERS)
    assert columns.get_file(RecordKind.PREDICTIONS).attributes == {"cam": "cam"}
    assert columns.get_file(RecordKind.DECISIONS).attributes == {"camera": "cam"}


def test_an_unknown_name_is_a_fault_with_its_line_and_the_right_names():
    (fault,) = faults_of("decisions:\n  reviewer: who\n  lable: verdict\n")
    assert fault.startswith("map.yaml:3: decisions have no 'lable'; there are case_key, site,")
    assert fault.endswith("alarm, label")


def test_with_several_levers_label_is_no_name():
    (fault,) = faults_of("decisions: {label: verdict}", levers=["crop", "water"])
    assert fault.endswith("attributes, crop, water")


def test_an_unknown_file_is_a_fault():
    (fault,) = faults_of("prediction: {label: x}")
    assert "no file 'prediction'; there are cases, predictions, decisions, outcomes" in fault


def test_all_faults_of_a_map_are_reported_at_once():
    faults = faults_of("cases: [x]\ndecisions: {reviewer: {valu: x}, attributes: x, wer: x}")
    assert len(faults) == 4


def test_a_repeated_key_is_a_fault():
    (fault,) = faults_of("decisions:\n  label: a\n  label: b\n")
    assert "map.yaml:3" in fault
    assert "repeated" in fault


def test_a_map_that_is_no_yaml_is_a_fault():
    assert "not YAML" in faults_of("decisions: [")[0]


def test_a_map_is_read_from_a_file(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_bytes(b"\xef\xbb\xbfpredictions: {label: said}")
    columns = read_column_map(path, levers=LEVERS)
    assert columns.get_file(RecordKind.PREDICTIONS).columns == {"value:alarm": "said"}
    path.write_bytes(b"predictions: {label: \xff}")
    with pytest.raises(ColumnError, match="not UTF-8"):
        read_column_map(path, levers=LEVERS)


def test_flags_say_what_a_file_says():
    flags = [
        "predictions.case_key=image",
        "predictions.model_version:=v=1",
        "predictions.attributes=camera, flash",
    ]
    text = (
        "predictions: {case_key: image, model_version: {value: v=1}, attributes: [camera, flash]}"
    )
    assert parse_column_flags(flags, levers=LEVERS) == parse_column_map(
        text, source="map.yaml", levers=LEVERS
    )


def test_a_flag_replaces_what_the_file_says_of_the_same_name():
    base = parse_column_map(
        "decisions: {reviewer: {value: ana}, label: verdict}", source="map.yaml", levers=LEVERS
    )
    columns = parse_column_flags(["decisions.reviewer=who"], levers=LEVERS, base=base)
    assert columns.get_file(RecordKind.DECISIONS) == FileColumns(
        {"value:alarm": "verdict", "reviewer": "who"}, {}
    )


@pytest.mark.parametrize("flag", ["case_key=image", "predictions.case_key", "predictions.=x", ""])
def test_a_flag_of_another_form_is_a_fault(flag):
    with pytest.raises(ColumnError, match=r"write KIND\.NAME=COLUMN"):
        parse_column_flags([flag], levers=LEVERS)


def test_one_lever_answers_under_label_or_under_its_id():
    assert (
        arrange_columns(
            RecordKind.PREDICTIONS, "p.csv", FOUND, FileColumns(), LEVERS
        ).get_file_column("value:alarm")
        == "label"
    )
    found = [*FOUND[:4], "alarm"]
    assert (
        arrange_columns(
            RecordKind.PREDICTIONS, "p.csv", found, FileColumns(), LEVERS
        ).get_file_column("value:alarm")
        == "alarm"
    )


def test_columns_that_nothing_else_takes_become_attributes():
    found = [*FOUND, "camera"]
    names = arrange_columns(RecordKind.PREDICTIONS, "p.csv", found, FileColumns(), LEVERS)
    assert names.columns["attribute:camera"] == "camera"
    assert names.ignored == ()


def test_with_a_list_of_attributes_the_other_columns_get_a_note():
    columns = FileColumns(attributes={"lens": "camera"})
    names = arrange_columns(
        RecordKind.PREDICTIONS, "p.csv", [*FOUND, "camera", "note"], columns, LEVERS
    )
    assert names.columns["attribute:lens"] == "camera"
    assert names.ignored == ("note",)


def test_what_stands_beside_an_outcome_is_no_attribute():
    found = ["case_key", "harm", "clerk"]
    names = arrange_columns(RecordKind.OUTCOMES, "o.csv", found, FileColumns(), LEVERS)
    assert names.ignored == ("clerk",)
    assert "attribute:clerk" not in names.columns


def test_a_missing_column_names_those_found_and_how_to_map():
    with pytest.raises(ColumnError) as caught:
        arrange_columns(RecordKind.PREDICTIONS, "p.csv", ["image", "label"], FileColumns(), LEVERS)
    keys, versions = caught.value.faults
    assert "p.csv: no column for 'case_key'; found: image, label" in keys
    assert "--map predictions.model_version:=TEXT" in versions


def test_a_mapped_column_that_is_not_there_is_a_fault():
    columns = FileColumns({"case_key": "imag"})
    with pytest.raises(ColumnError, match="no column 'imag', which is mapped to 'case_key'"):
        arrange_columns(RecordKind.PREDICTIONS, "p.csv", FOUND, columns, LEVERS)


def test_each_lever_needs_its_column():
    with pytest.raises(ColumnError, match="no column for 'water'"):
        arrange_columns(
            RecordKind.DECISIONS,
            "d.csv",
            ["case_key", "reviewer", "crop"],
            FileColumns(),
            [
                "crop",
                "water",
            ],
        )


def test_an_outcome_needs_an_answer_or_a_harm():
    with pytest.raises(ColumnError, match="an outcome needs one of harm, label"):
        arrange_columns(
            RecordKind.OUTCOMES, "o.csv", ["case_key", "outcome_at"], FileColumns(), LEVERS
        )
