import pytest

from rollout.formats.records.column_map import (
    ColumnFault,
    ColumnMap,
    FileColumns,
    arrange,
    columns_from_flags,
    parse_columns,
    read_columns,
)
from rollout.tally.frames import Kind

LEVERS = ["alarm"]
FOUND = ["case_key", "site", "occurred_at", "model_version", "label"]


def faults_of(text, levers=LEVERS):
    with pytest.raises(ColumnFault) as caught:
        parse_columns(text, source="map.yaml", levers=levers)
    return caught.value.faults


def test_an_empty_map_means_the_default_names():
    assert parse_columns("", source="map.yaml", levers=LEVERS) == ColumnMap()


def test_every_scalar_of_a_map_is_text():
    text = "decisions:\n  label: no\n  reviewer: {value: 007}\n"
    columns = parse_columns(text, source="map.yaml", levers=LEVERS).of(Kind.DECISIONS)
    assert columns.columns == {"value:alarm": "no"}
    assert columns.constants == {"reviewer": "007"}


def test_attributes_are_a_list_or_a_mapping():
    text = "predictions: {attributes: [cam]}\ndecisions: {attributes: {camera: cam}}"
    columns = parse_columns(text, source="map.yaml", levers=LEVERS)
    assert columns.of(Kind.PREDICTIONS).attributes == {"cam": "cam"}
    assert columns.of(Kind.DECISIONS).attributes == {"camera": "cam"}


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


def test_all_faults_of_a_map_are_told_at_once():
    faults = faults_of("cases: [x]\ndecisions: {reviewer: {valu: x}, attributes: x, wer: x}")
    assert len(faults) == 4


def test_a_repeated_key_is_a_fault():
    (fault,) = faults_of("decisions:\n  label: a\n  label: b\n")
    assert "map.yaml:3" in fault
    assert "twice" in fault


def test_a_map_that_is_no_yaml_is_a_fault():
    assert "not YAML" in faults_of("decisions: [")[0]


def test_a_map_is_read_from_a_file(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_bytes(b"\xef\xbb\xbfpredictions: {label: said}")
    columns = read_columns(path, levers=LEVERS)
    assert columns.of(Kind.PREDICTIONS).columns == {"value:alarm": "said"}
    path.write_bytes(b"predictions: {label: \xff}")
    with pytest.raises(ColumnFault, match="not UTF-8"):
        read_columns(path, levers=LEVERS)


def test_flags_say_what_a_file_says():
    flags = [
        "predictions.case_key=image",
        "predictions.model_version:=v=1",
        "predictions.attributes=camera, flash",
    ]
    text = (
        "predictions: {case_key: image, model_version: {value: v=1}, attributes: [camera, flash]}"
    )
    assert columns_from_flags(flags, levers=LEVERS) == parse_columns(
        text, source="map.yaml", levers=LEVERS
    )


def test_a_flag_replaces_what_the_file_says_of_the_same_name():
    base = parse_columns(
        "decisions: {reviewer: {value: ana}, label: verdict}", source="map.yaml", levers=LEVERS
    )
    columns = columns_from_flags(["decisions.reviewer=who"], levers=LEVERS, base=base)
    assert columns.of(Kind.DECISIONS) == FileColumns(
        {"value:alarm": "verdict", "reviewer": "who"}, {}
    )


@pytest.mark.parametrize("flag", ["case_key=image", "predictions.case_key", "predictions.=x", ""])
def test_a_flag_of_another_form_is_a_fault(flag):
    with pytest.raises(ColumnFault, match=r"write KIND\.NAME=COLUMN"):
        columns_from_flags([flag], levers=LEVERS)


def test_one_lever_answers_under_label_or_under_its_id():
    assert (
        arrange(Kind.PREDICTIONS, "p.csv", FOUND, FileColumns(), LEVERS).theirs("value:alarm")
        == "label"
    )
    found = [*FOUND[:4], "alarm"]
    assert (
        arrange(Kind.PREDICTIONS, "p.csv", found, FileColumns(), LEVERS).theirs("value:alarm")
        == "alarm"
    )


def test_columns_that_nothing_else_takes_become_attributes():
    found = [*FOUND, "camera"]
    names = arrange(Kind.PREDICTIONS, "p.csv", found, FileColumns(), LEVERS)
    assert names.columns["attribute:camera"] == "camera"
    assert names.ignored == ()


def test_with_a_list_of_attributes_the_other_columns_are_ignored_and_said():
    columns = FileColumns(attributes={"lens": "camera"})
    names = arrange(Kind.PREDICTIONS, "p.csv", [*FOUND, "camera", "note"], columns, LEVERS)
    assert names.columns["attribute:lens"] == "camera"
    assert names.ignored == ("note",)


def test_what_stands_beside_an_outcome_is_no_attribute():
    found = ["case_key", "harm", "clerk"]
    names = arrange(Kind.OUTCOMES, "o.csv", found, FileColumns(), LEVERS)
    assert names.ignored == ("clerk",)
    assert "attribute:clerk" not in names.columns


def test_a_missing_column_names_those_found_and_how_to_map():
    with pytest.raises(ColumnFault) as caught:
        arrange(Kind.PREDICTIONS, "p.csv", ["image", "label"], FileColumns(), LEVERS)
    keys, versions = caught.value.faults
    assert "p.csv: no column for 'case_key'; found: image, label" in keys
    assert "`predictions: {model_version: {value: TEXT}}`" in versions


def test_a_mapped_column_that_is_not_there_is_a_fault():
    columns = FileColumns({"case_key": "imag"})
    with pytest.raises(ColumnFault, match="no column 'imag', which is mapped to 'case_key'"):
        arrange(Kind.PREDICTIONS, "p.csv", FOUND, columns, LEVERS)


def test_each_lever_needs_its_column():
    with pytest.raises(ColumnFault, match="no column for 'water'"):
        arrange(
            Kind.DECISIONS,
            "d.csv",
            ["case_key", "reviewer", "crop"],
            FileColumns(),
            [
                "crop",
                "water",
            ],
        )


def test_an_outcome_needs_an_answer_or_a_harm():
    with pytest.raises(ColumnFault, match="an outcome needs one of harm, label"):
        arrange(Kind.OUTCOMES, "o.csv", ["case_key", "outcome_at"], FileColumns(), LEVERS)
