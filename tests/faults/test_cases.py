"""The cases of `make faults`: each row of the issue has one, and its tests exist."""

import ast

from tests.docs.pages import ROOT
from tests.faults.cases import CASES


def test_each_broken_promise_has_a_case():
    assert {case.row for case in CASES} == set(range(12))
    names = [(case.fault, case.engine) for case in CASES]
    assert len(set(names)) == len(names)


def test_the_tests_of_a_case_exist():
    for case in CASES:
        for node in getattr(case.measure, "keywords", {}).get("nodes", ()):
            path, _, name = node.partition("::")
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
            assert not name or name.partition("[")[0] in functions, node
