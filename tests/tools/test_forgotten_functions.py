"""A function that nothing names was left out of the list that would call it."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def list_unnamed(text):
    """Return the private functions and classes of a module that it names nowhere else."""
    counts = Counter(re.findall(r"\w+", text))
    return [
        part.name
        for part in ast.parse(text).body
        if isinstance(part, DEFINITIONS)
        and part.name.startswith("_")
        and not part.decorator_list
        and counts[part.name] == 1
    ]


def test_a_function_that_no_list_has_is_found():
    text = "def _compare_gates(): ...\ndef _compare_limits(): ...\nRULES = (_compare_gates,)\n"
    assert list_unnamed(text) == ["_compare_limits"]


def test_each_private_function_is_called_or_in_a_list():
    files = [path for part in ("rollout", "api") for path in (ROOT / part).rglob("*.py")]
    assert len(files) > 400
    unnamed = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in list_unnamed(path.read_text("utf-8"))
    }
    assert unnamed == set(), "call it, or add it to the rules, findings or checks beside it"
