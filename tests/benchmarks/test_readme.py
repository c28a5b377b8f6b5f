"""The table of jobs at the top of benchmarks/README.md, and the scripts, name what exists."""

import ast
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from benchmarks.run import JOBS

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TEXT = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
TABLE = TEXT.split("## Where each job stands")[1].split("\n## ")[0]


def read_rows():
    lines = [line for line in TABLE.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_each_row_has_a_figure_a_goal_and_a_result():
    assert len(read_rows()) >= 20
    for row in read_rows():
        assert len(row) == 6, row
        assert all(row[place] for place in (2, 3, 4, 5)), row


def test_each_command_is_a_script_and_each_link_a_section():
    scripts = re.findall(r"`(\w+)\.py`", TABLE)
    assert scripts
    assert {*scripts} <= {path.stem for path in BENCHMARKS.glob("*.py")}
    headings = re.findall(r"(?m)^#+ (.+)$", TEXT)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert {*re.findall(r"\(#([\w-]+)\)", TABLE)} <= anchors


def test_every_job_of_make_bench_is_described():
    assert not [
        job for job in JOBS if f"`{job}.py`" not in TEXT and f"benchmarks/{job}.py" not in TEXT
    ]


@pytest.mark.parametrize("script", sorted(BENCHMARKS.glob("*.py")), ids=lambda path: path.stem)
def test_what_a_script_imports_of_the_product_exists(script):
    """`test_smoke` runs the scripts, but not in every run."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("rollout.", "api.")
        ):
            for each in node.names:
                resolve_name(f"{node.module}.{each.name}")  # or it raises
