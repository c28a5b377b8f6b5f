import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.files.file_rows import read_delimited
from rollout.engine.files.mapped_rows import RecordError


def read(text, separator=","):
    content = text if isinstance(text, bytes) else text.encode()
    return read_delimited(content, file="rows.csv", separator=separator)


def torn(rows):
    return list(zip(rows.unparsed["line"], rows.unparsed["reason"], strict=True))


def test_cells_are_text_and_blank_cells_are_null():
    rows = read("site,label,hour\n46.10,no,007\n, ,\n")
    assert rows.cells.rows() == [("46.10", "no", "007"), (None, None, None)]
    assert rows.lines.to_list() == [2, 3]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
def test_the_end_of_the_file_does_not_matter(end):
    rows = read("a,b\n1,2\n3,4" + end)
    assert rows.cells.rows() == [("1", "2"), ("3", "4")]
    assert rows.count == 2


def test_lines_are_physical_lines_whatever_stands_between():
    rows = read('\n"a",b\r\n1,2\r\n\r\n3,"x\r\n\r\ny"\r\n5,6\r\n')
    assert rows.cells.rows() == [("1", "2"), ("3", "x\n\ny"), ("5", "6")]
    assert rows.lines.to_list() == [3, 5, 8]


def test_tabs_separate_the_other_kind():
    rows = read('a\tb\n1,5\t2\n"x\ty"\t3\n', separator="\t")
    assert rows.cells.rows() == [("1,5", "2"), ("x\ty", "3")]


def test_short_and_long_rows_are_torn_also_where_they_balance():
    rows = read("a,b,c\n1,2\n1,2,3,4\n1,2,3\n")
    assert rows.cells.rows() == [("1", "2", "3")]
    assert torn(rows) == [(2, "field-count"), (3, "field-count")]
    assert rows.unparsed["detail"][0] == "2 fields where the header has 3"


def test_short_and_long_rows_are_torn_where_a_good_row_comes_first():
    rows = read("a,b,c\n1,2,3\n1,2\n1,2,3,4\n")
    assert torn(rows) == [(3, "field-count"), (4, "field-count")]


def test_a_quote_that_is_never_closed_costs_its_own_row_alone():
    rows = read('a,b\n1,"open\n2,x\n3,"y"\n')
    assert rows.cells.rows() == [("2", "x"), ("3", "y")]
    assert torn(rows) == [(2, "bad-quoting")]


def test_two_slips_do_not_swallow_the_rows_between_them():
    rows = read('a,b\n1,"open\n2,x\n3,close"\n')
    assert rows.cells.rows() == [("2", "x")]
    assert torn(rows) == [(2, "bad-quoting"), (4, "bad-quoting")]


def test_a_quote_inside_a_bare_field_is_torn():
    assert torn(read('a,b\n6" nail,x\n"6" nail,x\n')) == [(2, "bad-quoting"), (3, "bad-quoting")]


def test_bytes_that_are_not_utf8_cost_their_row_alone():
    rows = read(b'a,b\n1,\xff\n2,caf\xc3\xa9\n"x\n\xe9",3\n4,5\n')
    assert rows.cells.rows() == [("2", "café"), ("4", "5")]
    assert torn(rows) == [(2, "bad-encoding"), (4, "bad-encoding")]


def test_a_header_alone_has_no_rows():
    rows = read("a,b")
    assert rows.cells.columns == ["a", "b"]
    assert rows.count == 0


def test_a_column_without_a_name_is_called_by_its_place():
    assert read(',"b"\n1,2\n').cells.columns == ["column 1", "b"]


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_a_file_without_a_header_is_refused(content):
    with pytest.raises(RecordError, match="the file is empty"):
        read(content)


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(RecordError, match="found twice: a"):
        read("a,b,a\n1,2,3\n")


@pytest.mark.parametrize(
    ("content", "reason"), [(b"a,\xff\n1,2\n", "bad-encoding"), (b'a,"b\n1,2\n', "bad-quoting")]
)
def test_a_header_that_cannot_be_read_is_refused(content, reason):
    with pytest.raises(RecordError) as caught:
        read(content)
    assert (caught.value.line, caught.value.reason) == (1, reason)


# A cell that spans lines holds no comma here: a line of it could be taken for a row.
CELLS = st.text("ab \"'é\t,", max_size=5) | st.text('ab "\n', max_size=5)


@pytest.mark.slow
@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=8), st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_is_read_back(written, end):
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=end).writerows([("a", "b", "c"), *written])
    rows = read(file.getvalue())
    assert torn(rows) == []
    assert rows.cells.rows() == [
        tuple(cell if cell.strip() else None for cell in r) for r in written
    ]


@pytest.mark.slow
@given(st.lists(st.text('a",\r', max_size=8).map(str.encode) | st.just(b"\xff,a"), max_size=8))
def test_every_row_begins_on_its_own_line_and_none_is_swallowed(lines):
    rows = read(b"x,y\n" + b"\n".join(lines))
    begun = sorted([*rows.lines, *rows.unparsed["line"]])
    assert len(set(begun)) == len(begun) == rows.count
    numbered = dict(enumerate(lines, start=2))
    assert set(begun) <= {at for at, line in numbered.items() if line.removesuffix(b"\r")}
    plain = {at for at, line in numbered.items() if re.fullmatch(rb'[^",\xff]*,[^",\xff]*', line)}
    assert plain <= set(rows.lines)
    unquoted = {at for at, line in numbered.items() if line.strip(b"\r") and b'"' not in line}
    if not any(b'"' in line for line in lines):
        assert unquoted <= set(begun)
