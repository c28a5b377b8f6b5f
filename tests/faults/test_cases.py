"""The cases of `make faults`: each row of the issue has one, tests that exist, and an outcome."""

import ast

from tests.docs.pages import ROOT
from tests.faults.cases import CASES
from tests.faults.outcomes import load_outcomes


def test_each_broken_promise_has_a_case():
    assert {case.row for case in CASES} == set(range(12))
    names = [(case.fault, case.engine) for case in CASES]
    assert len(set(names)) == len(names)


def test_each_case_has_its_outcome():
    outcomes = {(row.fault, row.engine) for row in load_outcomes()}
    assert {(case.fault, case.engine) for case in CASES} <= outcomes


def test_the_tests_of_a_case_exist():
    for case in CASES:
        for node in getattr(case.measure, "keywords", {}).get("nodes", ()):
            path, _, name = node.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert not name or name.partition("[")[0] in functions, node
