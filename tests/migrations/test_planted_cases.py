"""The revision of planted cases: rows of before stay, and it goes back unless a case is planted."""

from contextlib import closing

import pytest
from sqlalchemy import text

from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database
from tests.migrations.test_ledger_form import filled
from tests.migrations.test_record_senders import contents
from tests.migrations.test_safety_tables import rows_by_table

__all__ = ["filled"]
BEFORE, AFTER = "0036", "0034"
DECLARE = "insert into planted_cases (rollout, case_id, declared_at, revision) values (1, 7, 0, 2)"


def test_rows_of_before_occurred_by_themselves_and_a_declaration_stays(filled):
    upgrade(filled, BEFORE)
    before, rows = contents(filled), rows_by_table(filled)
    assert before["cases"]
    upgrade(filled, AFTER)
    after = contents(filled)
    assert after["cases"] == [{**row, "planted": None} for row in before["cases"]]
    assert rows_by_table(filled) == {**rows, "planted_cases": 0}
    downgrade(filled, BEFORE)
    assert contents(filled) == before
    upgrade(filled, AFTER)
    with closing(Database(filled)) as database, database.begin_write() as transaction:
        transaction.execute(text(DECLARE))
    with pytest.raises(RuntimeError, match="1 cases are declared as planted"):
        downgrade(filled, BEFORE)
