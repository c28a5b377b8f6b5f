"""A column of the list of divergences is declared once: API, page, CSV and report have it then."""

import os
import subprocess
import sys

import pytest

from rollout.features.reports.inputs.divergence_columns import (
    COLUMNS,
    EXAMPLE,
    Divergence,
    select_titled_columns,
)
from tests.faults.mends import Mend, copy_without

FIELD = "    attributes: Mapping[str, str]\n"
ADDED = """    latency_ms: Annotated[
        float | None,
        DivergenceColumn(
            "of its answer", 140.0, title="Latency", taken_from="predictions.latency_ms"
        ),
    ]
"""
COLUMN = Mend(
    47,
    "rollout/features/reports/inputs/divergence_columns.py",
    FIELD,
    ADDED + FIELD,
    "tests/console/added_column.py",
)


@pytest.mark.slow
def test_one_declaration_adds_a_column_to_api_page_file_and_report(tmp_path):
    copy_without(COLUMN, tmp_path)
    words = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", COLUMN.node]
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "ROLLOUT_TEST_SAMPLE": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout[-4000:]


def test_columns_are_the_fields_and_have_examples():
    assert [*COLUMNS] == [name for name in Divergence.__dataclass_fields__ if name in COLUMNS]
    assert EXAMPLE.keys() == Divergence.__dataclass_fields__.keys()


def test_column_without_values_is_no_column_of_a_page():
    row = Divergence(**EXAMPLE)
    assert [*select_titled_columns([row])] == []
    known = Divergence(**EXAMPLE | {"outcome": "bear"})
    assert [*select_titled_columns([row, known])] == ["outcome"]
