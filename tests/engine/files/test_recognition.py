"""Each form is recognized by what only it has; what fits twice becomes a question."""

import polars as pl
import pytest

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.column_map import format_suggestion, suggest_column
from rollout.engine.files.file_rows import recognize_encoding
from rollout.engine.files.questions import ReadingQuestion
from rollout.engine.files.recognition import recognize_delimiter
from rollout.engine.files.text_formats import (
    find_several_labels,
    recognize_date_formats,
    recognize_decimal,
    recognize_percent,
    recognize_unsure,
    rewrite_decimals,
    rewrite_times,
)

NO_NUMBERS = pl.Series([], dtype=pl.String)


def option_of(found):
    return found.choices[0].option if isinstance(found, ReadingQuestion) else found


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"plain", "utf-8"),
        ("Mühle".encode(), "utf-8"),
        ("Mühle".encode("latin-1"), "latin-1"),
        ("Mühle – 5 €".encode("cp1252"), "cp1252"),
        ("Straße 5 m²".encode("latin-1"), "latin-1"),
        ("Mühle".encode("mac-roman"), "utf-8"),  # not explained, so its rows are rejected
        ("Mühle".encode("cp850"), "utf-8"),
        ("žába, Łódź".encode("cp1250"), "utf-8"),
        ("мельница".encode("koi8-r"), "utf-8"),
        (b"Stra\xff\xfee", "utf-8"),
        ("Mühle".encode() + b"\nM\xfchle", "utf-8"),  # UTF-8 with a damaged row
        ("ab;c".encode("utf-16"), "utf-16"),
        ("ab;c".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_an_encoding_is_recognized_only_where_every_letter_fits(content, encoding):
    assert recognize_encoding(content) == encoding


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n", ";"),
        ("a;b\n", ";"),
        ("a|b\n1|2\n", "|"),
        ("alone\n1\n", ","),
        ('a,b\n"x;y",2\n"z;w",3\n', ","),
        ("a;b,c;d\n1;2,3;4\n", "--delimiter"),
        ("a,b;c\n1,2;3\n1,2;3\n", "--delimiter"),
    ],
)
def test_a_delimiter_splits_every_row_like_the_header(text, delimiter):
    assert option_of(recognize_delimiter(text.encode(), "rows.csv")) == delimiter


@pytest.mark.parametrize(
    ("texts", "formats"),
    [
        (["2027-03-01T10:00:00", None], ()),
        (["13.03.2027 10:00"], ("day-first",)),
        (["3/13/2027 1:05 PM"], ("month-first",)),
        (["13.03.2027 10:00", "1700000000"], ("unix-seconds", "day-first")),
        (["yesterday"], ()),
        (["202705031405"], ()),  # no milliseconds: year, month, day and time
        (["2705031405"], "--date-format"),
        (["2705031405", "1700000000"], ("unix-seconds",)),
        (["01.02.2027 10:00"], "--date-format"),
        (["١٧٠٠٠٠٠٠٠٠", "١٣.٠٣.٢٠٢٧ 10:00"], ()),
        (["13.03.2027 10:00", "03.13.2027 10:00"], "--date-format"),
    ],
)
def test_an_order_of_day_and_month_fits_every_time_or_is_asked_for(texts, formats):
    assert option_of(recognize_date_formats([pl.Series(texts)], "rows.csv")) == formats


@pytest.mark.parametrize(
    ("text", "date_format", "iso"),
    [
        ("3.5.2026 4:05", "day-first", "2026-05-03T04:05:00"),
        ("03-05-2026T04:05:06.5+0200", "day-first", "2026-05-03T04:05:06.5+0200"),
        ("5/3/2026, 12:05 am", "month-first", "2026-05-03T00:05:00"),
        ("5/3/2026 12:05:00 P.M.", "month-first", "2026-05-03T12:05:00"),
        ("5/3/2026 13:05 PM", "month-first", "5/3/2026 13:05 PM"),
        ("2026/5/3 4:05 UTC", "year-first", "2026-05-03T04:05:00Z"),
        ("1777781106.25", "unix-seconds", "2026-05-03T04:05:06.250Z"),
        ("1777781106250", "unix-milliseconds", "2026-05-03T04:05:06.250Z"),
        ("1777781106.٣", "unix-seconds", "1777781106.٣"),
        ("١٧٧٧٧٨١١٠٦", "unix-seconds", "١٧٧٧٧٨١١٠٦"),
        ("١٧٧٧٧٨١١٠٦٢٥٠", "unix-milliseconds", "١٧٧٧٧٨١١٠٦٢٥٠"),
        ("3 May 2026 04:05 +0200", "%d %B %Y %H:%M %z", "2026-05-03T02:05:00Z"),
        ("31.02.2026 10:00", "day-first", "2026-02-31T10:00:00"),  # rejected as no date
        ("2026-05-03 04:05", "month-first", "2026-05-03 04:05"),
    ],
)
def test_times_are_rewritten_to_iso(text, date_format, iso):
    assert rewrite_times(pl.Series([text]), [date_format]).to_list() == [iso]


@pytest.mark.parametrize(
    ("confidence", "others", "decimal"),
    [
        (["0.5"], [], "."),
        (["0,5"], ["1.200"], ","),
        (["0,500"], [], ","),
        (["0.5", "0,5"], [], "--decimal"),
        ([], ["1,200"], "--decimal"),
        ([], ["1,2"], "--decimal"),
    ],
)
def test_a_comma_is_decimal_only_where_nothing_else_fits(confidence, others, decimal):
    columns = [pl.Series(texts, dtype=pl.String) for texts in (confidence, others)]
    assert option_of(recognize_decimal(columns[0], columns[1:], "rows.csv")) == decimal


def test_thousands_are_read_with_decimal_commas_only():
    texts = pl.Series(["1.200", "1.200,5", "0.5"])
    assert rewrite_decimals(texts, ",").to_list() == ["1200", "1200.5", "0.5"]
    assert rewrite_decimals(texts, ".").to_list() == texts.to_list()


@pytest.mark.parametrize(
    ("texts", "percent"),
    [
        (["0.2", "1"], False),
        ([], False),
        (["55", "93.1", "100"], True),
        (["0.5 %", "0.7 %"], True),
        (["0.5", "93 %"], "--percent"),
        (["0", "1"], "--percent"),
        (["0.4", "0.9", "93"], "--percent"),
    ],
)
def test_confidence_is_in_percent_only_where_nearly_all_are_above_one(texts, percent):
    assert option_of(recognize_percent(pl.Series(texts, dtype=pl.String), "rows.csv")) == percent


@pytest.mark.parametrize(
    ("decided", "predicted", "labels"),
    [
        (["bear", "Unknown"], ["bear"], ("Unknown",)),
        (["bear"], ["unknown"], ()),
        (["bear", "unknown"], ["unknown"], "--unsure"),
    ],
)
def test_a_label_means_no_answer_only_if_the_model_does_not_predict_it(decided, predicted, labels):
    assert option_of(recognize_unsure(decided, predicted, "rows.csv")) == labels


@pytest.mark.parametrize(
    ("labels", "several"),
    [
        (["bear", "bear;deer"], "bear;deer"),
        (["a|b", "a|c"], "a|b"),
        (["1", "2", "1,2"], "1,2"),
        (['["bear", "deer"]'], '["bear", "deer"]'),
        (["a, b", "c"], None),
        (["red, large", "red, small"], None),
        (["[bear]", "deer"], None),
    ],
)
def test_several_labels_in_a_field_are_found(labels, several):
    assert find_several_labels(labels) == several


@pytest.mark.parametrize(
    ("name", "columns", "column"),
    [
        ("label", ["image", "prediction"], "prediction"),
        ("case_key", ["Case Key", "x"], "Case Key"),
        ("occurred_at", ["ocurred_at"], "ocurred_at"),
        ("site", ["latitude"], None),
    ],
)
def test_a_close_column_is_suggested(name, columns, column):
    assert suggest_column(name, columns) == column


def test_a_suggested_column_can_be_pasted_into_a_shell():
    suggestion = format_suggestion(RecordKind.PREDICTIONS, "label", ["Pred Label"])
    assert suggestion == "; did you mean --map 'predictions.label=Pred Label'?"
