"""The whole of level 2 is there; each row names a test that exists, or what is missing."""

import ast
from functools import cache

import pytest

from tests.docs.asvs_page import STATUSES, load_requirements
from tests.docs.pages import ROOT

REQUIREMENTS = load_requirements()
LEVEL_2 = """
1.1: 1-2  1.2: 1-9  1.3: 1-11  1.4: 1-3  1.5: 1-2  2.1: 1-3  2.2: 1-3  2.3: 1-4  2.4: 1-1
3.2: 1-2  3.3: 1-4  3.4: 1-6  3.5: 1-5  3.7: 1-2  4.1: 1-3  4.2: 1-1  4.3: 1-2  4.4: 1-4
5.1: 1-1  5.2: 1-3  5.3: 1-2  5.4: 1-3  6.1: 1-3  6.2: 1-12  6.3: 1-4  6.4: 1-4  6.5: 1-5
6.6: 1-3  6.8: 1-4  7.1: 1-3  7.2: 1-4  7.3: 1-2  7.4: 1-5  7.5: 1-2  7.6: 1-2  8.1: 1-2
8.2: 1-3  8.3: 1-1  8.4: 1-1  9.1: 1-3  9.2: 1-4  10.1: 1-2  10.2: 1-2  10.3: 1-4  10.4: 1-11
10.5: 1-5  10.6: 1-2  10.7: 1-3  11.1: 1-2  11.2: 1-3  11.3: 1-3  11.4: 1-4  11.5: 1-1
11.6: 1-1  12.1: 1-3  12.2: 1-2  12.3: 1-4  13.1: 1-1  13.2: 1-5  13.3: 1-2  13.4: 1-5
14.1: 1-2  14.2: 1-4  14.3: 1-3  15.1: 1-3  15.2: 1-3  15.3: 1-7  16.1: 1-1  16.2: 1-5
16.3: 1-4  16.4: 1-3  16.5: 1-3  17.1: 1-1  17.2: 1-4  17.3: 1-2
"""
"""Numbers of levels 1 and 2 of ASVS 5.0.0, by section; those of level 3 come last in each."""


@cache
def list_functions(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_requirement_of_level_2_has_a_row():
    words = LEVEL_2.split()
    expected = [
        f"{section.rstrip(':')}.{number}"
        for section, span in zip(words[::2], words[1::2], strict=True)
        for number in range(1, int(span.partition("-")[2]) + 1)
    ]
    assert list(REQUIREMENTS) == expected
    assert len(expected) == 253


@pytest.mark.parametrize("chapter", range(1, 18))
def test_what_is_met_names_a_test_that_exists_and_the_rest_what_is_missing(chapter):
    rows = {n: row for n, row in REQUIREMENTS.items() if n.split(".")[0] == str(chapter)}
    for number, row in rows.items():
        assert row["status"] in STATUSES, number
        assert row["asks"], number
        assert bool(row["where"]) is (row["status"] != "none"), number
        assert row["test"] or row["status"] != "met", number
        if row["test"]:
            path, _, name = row["test"].partition("::")
            assert name in list_functions(path), number
