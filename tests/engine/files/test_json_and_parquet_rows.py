import io
import json
from datetime import UTC, date, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files.file_rows import read_json_lines, read_parquet
from rollout.engine.files.mapped_rows import RecordError


def read(*lines):
    content = b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)
    return read_json_lines(content, progress=lambda _: None)


def parquet(**columns):
    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    return read_parquet(file.getvalue(), file="rows.parquet").cells


def test_numbers_and_truth_values_keep_their_letters():
    rows = read('{"site": 46.10, "label": 0, "sure": true, "note": null, "all": [1.50]}')
    assert rows.cells.row(0, named=True) == {
        "site": "46.10",
        "label": "0",
        "sure": "true",
        "note": None,
        "all": '["1.50"]',
    }


def test_rows_with_other_keys_stand_in_the_order_of_lines():
    rows = read('{"a": "1"}', "", '{"b": "2", "a": "3"}', "{}", '{"a": "4"}')
    assert rows.lines.to_list() == [1, 3, 4, 5]
    assert rows.cells.to_dict(as_series=False) == {
        "a": ["1", "3", None, "4"],
        "b": [None, "2", None, None],
    }


@pytest.mark.parametrize(
    "line",
    ['{"a": 1, "label": "bear", "label": "fox"}', '{"all": {"label": 1, "b": 2, "label": 1}}'],
)
def test_a_name_written_twice_is_refused_by_name(line):
    (fault,) = read('{"a": 1}', line).unparsed["detail"].to_list()
    assert "'label' is written twice" in fault


def test_a_key_may_be_anything():
    keys = {"line": "1", "\n": "2", "linelonger": "3", "": "4"}
    assert read(json.dumps(keys)).cells.row(0, named=True) == keys


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": 1', "bad-json"),
        ("[1, 2]", "bad-json"),
        ('"a"', "bad-json"),
        ('{"a": 1, "a": 2}', "bad-json"),
        ('{"a": "\\ud800"}', "bad-json"),
        ('{"\\ud800": "a"}', "bad-json"),
        ("[" * 100_000, "bad-json"),
        (b'{"a": "\xff"}', "bad-encoding"),
    ],
)
def test_a_line_that_is_no_object_costs_itself_alone(line, reason):
    rows = read('{"a": "1"}', line, '{"a": "\\u00e9\\ud83d\\udc3b"}')
    assert rows.cells["a"].to_list() == ["1", "é🐻"]
    assert rows.lines.to_list() == [1, 3]
    assert rows.unparsed.select("line", "reason").rows() == [(2, reason)]


def test_an_empty_file_has_no_rows():
    assert read("").count == 0


# Of the control letters Python and Unicode do not agree which are blank.
TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=3)


@pytest.mark.slow
@given(st.lists(st.dictionaries(TEXT, TEXT), max_size=6))
def test_what_a_json_writer_writes_is_read_back(written):
    rows = read(*(json.dumps(row) for row in written))
    assert rows.count == len(written)
    for row, cells in zip(written, rows.cells.iter_rows(named=True), strict=bool(rows.cells.width)):
        expected = {key: text if text.strip() else None for key, text in row.items()}
        assert {key: cells[key] for key in row} == expected


def test_parquet_becomes_text():
    cells = parquet(
        at=[datetime(2027, 5, 3, 14, 5, 9, tzinfo=UTC)],
        local=[datetime(2027, 5, 3, 14, 5, 9, 250_000)],  # noqa: DTZ001 - a local time
        day=[date(2027, 5, 3)],
        number=[46.1],
        whole=[7],
        sure=[True],
        parts=[["a", "b"]],
        bytes=[b"x"],
        none=[None],
    )
    assert cells.row(0) == (
        "2027-05-03T14:05:09+00:00",
        "2027-05-03T14:05:09.250",
        "2027-05-03",
        "46.1",
        "7",
        "true",
        '["a", "b"]',
        "\"b'x'\"",
        None,
    )


def test_a_damaged_parquet_file_is_refused():
    with pytest.raises(RecordError, match=r"rows\.parquet: damaged"):
        read_parquet(b"PAR1 not really", file="rows.parquet")
