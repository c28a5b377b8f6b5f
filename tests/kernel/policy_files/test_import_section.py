"""The section `import` is read, checked, and drafted so that it reads back the same."""

from pathlib import Path

import pytest

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.column_map import ColumnError, build_policy_columns
from rollout.engine.files.policy_draft import draft_import
from rollout.kernel.policy.evidence_sources import FileReading
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy

SMALLEST = (Path(__file__).parents[3] / "config/policies/smallest.yaml").read_text(encoding="utf-8")
READING = FileReading(
    encoding="cp1252",
    delimiter="\t",
    decimal=",",
    date_formats=("unix-seconds", "%d-%b-%Y %H:%M"),
    percent=True,
    unsure=("n/a", "unsure"),
    exposure="blind",
    columns={"label": "Art: x", "case_key": "id"},
    constants={"reviewer": "ana"},
    attributes={"camera": "cam"},
)


def read(section):
    return parse_policy(f"{SMALLEST}\n{section}\n").file_readings


def test_a_drafted_section_reads_back_the_same():
    section = "\n".join(draft_import({"decisions": READING, "predictions": FileReading()}))
    assert read(section) == {"decisions": READING}


def test_files_in_the_documented_form_need_no_section():
    reading = FileReading(encoding="utf-8", decimal=".", percent=False, date_formats=(), unsure=())
    assert list(draft_import({"predictions": reading})) == []


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("records: prediction", "did you mean predictions"),
        ("{records: pairs, delimiter: '#'}", "'#' is no delimiter; write one of , ; | and tab"),
        ("{records: pairs, encoding: klingon}", "'klingon' is no encoding"),
        ("{records: pairs, date_format: [dd.mm]}", "'dd.mm' is no date format"),
        ("{records: pairs, date_format: ['%d.%m.%Y']}", "has no time of day"),
        ("{records: pairs, columns: {label: [a]}}", "label is neither a column"),
        ("{records: pairs, columns: [a]}", "write keys and values"),
        ("{records: pairs, unsure: []}", "is empty"),
        ("records: pairs\n  - records: pairs", "'pairs' is repeated, first as import[0]"),
    ],
)
def test_a_wrong_row_is_a_fault_with_its_remedy(row, fault):
    with pytest.raises(InvalidPolicyError) as caught:
        read(f"import:\n  - {row}")
    assert fault in str(caught.value)


def test_an_unknown_name_of_a_column_is_refused_when_files_are_read():
    readings = {RecordKind.DECISIONS: FileReading(columns={"lable": "x"})}
    with pytest.raises(ColumnError, match="import of the policy: decisions have no 'lable'"):
        build_policy_columns(readings, levers=["alarm"])
