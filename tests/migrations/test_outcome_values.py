"""The revision of outcome values: rows of before stay as they are, and values go again."""

import pytest
from sqlalchemy import create_engine, text

from rollout.store.database.migrations import downgrade, upgrade
from tests.migrations.test_ledger_form import filled
from tests.migrations.test_safety_tables import rows_by_table

__all__ = ["filled"]
BEFORE, AFTER = "0030", "0031"
STORE = (
    "insert into outcomes (rollout, case_id, revision, answers, at, source, received_at, hash,"
    " outcome_values) values (1, 1, 9, '{}', 0, '', 0, :hash, :outcome_values)"
)


@pytest.mark.slow
def test_outcomes_get_values_and_lose_them_again(filled):
    upgrade(filled, BEFORE)
    before = rows_by_table(filled)
    upgrade(filled, AFTER)
    assert rows_by_table(filled) == {**before, "counted_outcomes": 0}
    engine = create_engine(filled)
    with engine.begin() as connection:
        values = {"hash": b"h", "outcome_values": '{"profit":1.5}'}
        connection.execute(text(STORE), values)
    engine.dispose()
    downgrade(filled, BEFORE)
    assert rows_by_table(filled) == {**before, "outcomes": before["outcomes"] + 1}
