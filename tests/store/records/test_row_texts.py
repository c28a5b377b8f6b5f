"""The text of a row, of which hashes are made, does not depend on the other rows."""

import pytest

from rollout.store.records.record_rows import format_rows

ROWS = [
    ("a", None, 1, 0.0, True, "50 %"),
    ("a", None, True, -0.0, True, "50 %"),
    ("ä%s", "b", 1.0, float("nan"), False, "%a"),
    ("", None, 0, float("inf"), True, "'\\\0"),
]


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:2], ROWS[2:], [ROWS[0]] * 3, *([row] for row in ROWS)]
)
def test_texts_are_those_of_each_row_alone(rows):
    plain = [", ".join(["(100 %", *map(ascii, row)]) for row in rows]
    assert format_rows("(100 %", list(zip(*rows, strict=True))) == plain
