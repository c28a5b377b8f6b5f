"""A replica that answers holds no frames, no SciPy and no reports until something needs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.databases import fresh

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
HEAVY = (
    *("numpy", "polars", "narwhals", "scipy", "cryptography", "alembic.command"),
    *(
        "rollout.engine.evidence.frames",
        "rollout.engine.evidence.evidence_view",
        "rollout.engine.slots.engine",
    ),
    *("rollout.features.reports.figures.facts", "rollout.live.evidence.evidence_reader"),
)


def test_ordinary_requests_and_idle_jobs_import_nothing_that_counts(tmp_path):
    with fresh("sqlite", tmp_path) as url:
        run = subprocess.run(
            [sys.executable, "-m", "tests.api.light_replica", url, *HEAVY],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
    assert run.returncode == 0, run.stderr[-2_000:]
    loaded = json.loads(run.stdout.splitlines()[-1])
    ticked = loaded.pop("tick")
    assert {what: names for what, names in loaded.items() if names} == {}
    assert len(loaded) > 25
    assert "polars" in ticked  # so an import would have been seen
