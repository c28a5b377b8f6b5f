"""docs/how-to/cleaning.md is run: a list from files and from a database, filled in, trained on."""

import csv
import json
from pathlib import Path

import pytest

from tests.docs.pages import typed
from tests.docs.test_docs import folder, run

__all__ = ["folder"]

SETUP = (
    "rollout db upgrade",
    "rollout apply policy.yaml --by ana --at 2026-09-01T00:00Z",
    "rollout import ramps --predictions predictions.csv --decisions decisions.csv --by ana",
)


def fill(file="list.csv"):
    """Fill in the list's first two rows as a person would; return how many rows it has."""
    with Path(file).open(encoding="utf-8", newline="") as text:
        rows = list(csv.DictReader(text))
    rows[0] |= {"choice": "relabel", "label": rows[0]["model"], "reason": "a dent"}
    rows[1] |= {"choice": "drop"}
    with Path(file).open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


@pytest.mark.slow
def test_the_page_runs_as_written_and_both_ways_give_the_same_rows(folder):
    listed, exported, verified, listed_live, applied, exported_live = (
        one.line for one in typed("docs/how-to/cleaning.md")
    )
    run(listed)
    in_files = fill()
    run(exported)
    assert "rows match training.parquet.manifest.json" in run(verified)
    for line in SETUP:
        run(line)
    run(listed_live)
    assert fill() == in_files
    assert run(applied).strip() == "2 saved, 0 unchanged, 0 rejected"
    run(exported_live)
    one, other = (
        json.loads(Path(f"training.{form}.manifest.json").read_text("utf-8"))
        for form in ("parquet", "jsonl")
    )
    assert one["excluded"] == other["excluded"] == {"dropped": 1}
    assert one["sha256"] == other["sha256"]
