"""The cases of `make faults`: each row of the issue has one, tests that exist, and an outcome."""

import ast

import pytest

from tests.docs.pages import ROOT
from tests.faults.cases import CASES, run_tests
from tests.faults.mends import MENDS, take_away
from tests.faults.outcomes import load_outcomes

COUNTS = {"lost", "doubled", "wider", "late_stops"}


def has_test(node):
    """Return whether the module of a test exists, and has it."""
    path, _, name = node.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    return not name or name.partition("[")[0] in functions


def test_each_broken_promise_has_a_case():
    assert {case.row for case in CASES} == set(range(12))
    names = [(case.fault, case.engine) for case in CASES]
    assert len(set(names)) == len(names)


def test_each_case_has_its_outcome():
    outcomes = {(row.fault, row.engine) for row in load_outcomes()}
    assert {(case.fault, case.engine) for case in CASES} <= outcomes


def test_an_outcome_has_no_figure_that_its_case_does_not_measure():
    measured = {
        (case.fault, case.engine): COUNTS & case.measure.keywords["figures"].keys()
        for case in CASES
        if getattr(case.measure, "func", None) is run_tests
    }
    figures = {
        (row.fault, row.engine): {name for name in COUNTS if getattr(row, name) is not None}
        for row in load_outcomes()
    }
    assert {name: figures[name] for name in measured} == measured


def test_the_tests_of_a_case_exist():
    for case in CASES:
        for node in getattr(case.measure, "keywords", {}).get("nodes", ()):
            assert has_test(node), node


@pytest.mark.parametrize("mend", MENDS, ids=lambda mend: f"row {mend.row}")
def test_a_mend_can_be_taken_away(mend):
    """`python -m tests.faults.mends` shows which tests fail without it."""
    text = (ROOT / mend.file).read_text(encoding="utf-8")
    assert take_away(mend, text) != text
    assert has_test(mend.node)


def test_every_row_of_the_table_has_a_mend():
    assert [mend.row for mend in MENDS] == list(range(1, 12))
