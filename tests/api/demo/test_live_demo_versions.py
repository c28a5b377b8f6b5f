"""The live demo's history has each version from its first prediction on."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from rollout.features.demo.catalog import find_example
from rollout.features.demo.recorded_cases import load_cases
from rollout.features.demo.stage import DATABASE_FILE, build_case_records, prepare_history

pytestmark = pytest.mark.simulation

INSTALLED = datetime(2026, 4, 2, 6, tzinfo=UTC)


def test_a_later_version_begins_with_its_first_prediction(tmp_path):
    """Without this the demos of takeovers never had their second version."""
    shipped = find_example("mask-door")
    ends_at = INSTALLED + timedelta(hours=6)
    example = shipped.model_copy(update={"serve_at": ends_at})
    first = INSTALLED - timedelta(days=2)
    cases = tuple(case for case in load_cases(example) if case.at >= first)
    records = build_case_records(example)
    history = prepare_history(tmp_path, example, records, cases, lambda: None)
    with closing(sqlite3.connect(history.folder / DATABASE_FILE)) as connection:
        rows = connection.execute("select version, recorded_at, trained_until from versions")
        versions = {name: (read_time(at), read_time(trained)) for name, at, trained in rows}
        used = connection.execute(
            "select at from ledger where kind = 'VersionFirstUsed' and body like '%v2%'"
        ).fetchall()
    assert set(versions) == {"v1", "v2"}
    recorded_at, trained_until = versions["v2"]
    assert timedelta(0) <= recorded_at - INSTALLED < timedelta(hours=1)
    assert trained_until == shipped.training_cutoffs["v2"]
    assert [read_time(at) for (at,) in used] == [recorded_at]


def read_time(microseconds):
    return datetime.fromtimestamp(microseconds / 1e6, UTC)
