"""A text that stands for a missing value is cleared from names and answers, in any case."""

import polars as pl
import pytest

from rollout.engine.evidence.frames import RecordKind
from rollout.engine.files.column_map import ColumnLayout
from rollout.engine.files.mapped_rows import PLACEHOLDERS, MappedRows, clear_placeholders


def clear(texts, listed=()):
    cells = pl.DataFrame({"site": texts}, schema={"site": pl.String})
    lines = pl.Series(range(2, 2 + len(texts)))
    layout = ColumnLayout({"site": "place"}, {}, ())
    rows = MappedRows(RecordKind.PREDICTIONS, "predictions.csv", cells, lines, layout)
    cleared = clear_placeholders(rows, {"site": listed})
    return cleared.cells["site"].to_list(), sorted(cleared.remarks["line"])


@pytest.mark.parametrize("text", sorted(PLACEHOLDERS))
def test_it_is_found_in_any_case_and_between_spaces_alone(text):
    names = [f"x{text}", f"{text} b", text + "x", None]
    assert clear([text, text.upper(), f"   {text}\t", *names]) == ([None] * 3 + names, [2, 3, 4])


def test_one_that_a_policy_lists_is_a_name():
    assert clear(["None", "nan"], ["none"]) == (["None", None], [3])
