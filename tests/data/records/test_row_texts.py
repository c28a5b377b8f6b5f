"""The text of a row, of which hashes are made, does not depend on the other rows."""

import json

import pytest

from rollout.data.records.record_rows import RECORD_SCHEMAS, compute_record_hashes, format_rows

ROWS = [
    {"key": "a", "note": None, "revision": 1, "confidence": 0.5, "unsure": True, "answers": "{}"},
    {"key": "a", "note": None, "revision": 1, "confidence": 0.5, "unsure": True, "answers": "{}"},
    {"key": "ä%s", "note": "b", "revision": 2, "confidence": 1, "unsure": False, "answers": "{}"},
    {"key": "%a", "note": "'\\\0\n\"", "confidence": None, "unsure": True, "answers": '{"a":null}'},
]
BARE = {"answers": {}, "confidence": 0.5, "key": "a", "revision": 1, "unsure": True}


def format_some(rows):
    return format_rows({name: [row.get(name) for row in rows] for name in ROWS[0]})


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:2], ROWS[2:], [ROWS[0]] * 3, *([row] for row in ROWS)]
)
def test_texts_are_those_of_each_row_alone(rows):
    assert format_some(rows) == [format_some([row])[0] for row in rows]


@pytest.mark.parametrize("row", ROWS)
def test_a_text_is_canonical_json_without_what_is_null(row):
    values = {name: value for name, value in row.items() if value is not None}
    values |= {"answers": json.loads(row["answers"])}
    if "confidence" in values:
        values["confidence"] = float(values["confidence"])
    (text,) = format_some([row])
    assert text == json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def test_a_column_that_is_null_in_every_row_changes_no_text():
    (text,) = format_some(ROWS[:1])
    assert json.loads(text) == BARE
    assert format_rows({**{n: [v] for n, v in ROWS[0].items()}, "weather": [None]}) == [text]


@pytest.mark.parametrize("number", [0, 0.0, -0.0])
def test_numbers_that_are_equal_have_one_text(number):
    assert format_rows({"share": [number]}) == ['{"share":0.0}']


THIS_DATABASE = {"rollout", "case_id", "episode"}  # numbers; their keys are covered
HASHES = {"hash", "salt", "record_hash"}


@pytest.mark.parametrize("schema", RECORD_SCHEMAS.values(), ids=RECORD_SCHEMAS)
def test_a_hash_covers_every_column_but_numbers_and_hashes(schema):
    def compute(**more):
        return compute_record_hashes(schema.name, {"key": ["a"], **more}, [bytes(16)])

    plain = compute()
    for column in set(schema.table.c.keys()) - THIS_DATABASE - HASHES:
        assert compute(**{column: ["1"]}) != plain, column
