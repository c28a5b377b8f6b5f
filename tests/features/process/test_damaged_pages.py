"""`rollout doctor` says what it can't read, and goes on with the rest."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rollout.data.database.session import Database
from rollout.features.process.health_checks import run_health_checks
from tests.data.databases import fresh
from tests.live.test_evidence_check import tick_often

TABLES = ("ledger", "decisions", "cases", "counted_units", "counts", "predictions", "rollouts")


@pytest.fixture
def path(tmp_path):
    with fresh("sqlite", tmp_path) as url, closing(Database(url)) as database:
        tick_often(database)
        yield url.removeprefix("sqlite:///")


def damage(path, table):
    """Overwrite the pages of a table, as a broken disk would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
        (size,) = connection.execute("pragma page_size").fetchone()
        query = "select rootpage from sqlite_master where type = 'table' and name = ?"
        (page,) = connection.execute(query, [table]).fetchone()
    with Path(path).open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_damaged_page_gets_a_sentence_and_the_other_checks_go_on(path, table):
    damage(path, table)
    with closing(Database(f"sqlite:///{path}")) as database:
        checks = list(run_health_checks(database, rebuilds=True))
    faults = [fault for check in checks for fault in check.faults]
    assert any("can't be read" in fault and "restore" in fault for fault in faults)
    assert any(not check.faults for check in checks)
    if table == "decisions":
        (evidence,) = (check for check in checks if "evidence" in check.title)
        assert evidence.faults[0].startswith("decisions: can't be read")
        assert "recomputed" in evidence.title
