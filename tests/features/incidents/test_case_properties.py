"""Properties of judged cases, from the stored texts of their attributes."""

import json

import polars as pl
import pytest

from rollout.features.incidents.incident_causes import _build_attributes
from rollout.kernel.statistics.value_search import MIN_CASES

ROWS = [{"lens": "new", "crew:": "é"}] * MIN_CASES + [{"lens": 'o":1', "crew:": None}, {}]


def read_kinds(rows):
    texts = pl.Series([json.dumps(row) for row in rows], dtype=pl.String)
    return {kind.name: (kind.values, kind.codes.tolist()) for kind in _build_attributes(texts)}


def test_values_of_few_cases_are_not_ranked():
    codes = [*[0] * MIN_CASES, -1, -1]
    assert read_kinds(ROWS) == {"lens": (("new",), codes), "crew:": (("é",), codes)}
    assert read_kinds([]) == read_kinds([{}]) == {}


@pytest.mark.parametrize("value", [7, 1.0, True, ["a"]])
def test_numbers_and_flags_are_named_as_the_pages_name_them(value):
    rows = [{**row, "size": value} for row in ROWS]
    assert read_kinds(rows) == {**read_kinds(ROWS), "size": ((str(value),), [0] * len(rows))}
