"""Each requirement names a test that exists, and what is not met is said so."""

import ast

import pytest

from tests.docs.asvs_page import STATUSES, load_requirements
from tests.docs.pages import ROOT

REQUIREMENTS = load_requirements()


@pytest.mark.parametrize("number", REQUIREMENTS)
def test_a_requirement_that_is_met_names_a_test_that_exists(number):
    row = REQUIREMENTS[number]
    assert row["status"] in STATUSES
    assert bool(row["where"]) is (row["status"] != "none")
    assert row["test"] or row["status"] in {"none", "not met"}
    if row["test"]:
        path, _, name = row["test"].partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert name in functions
