"""The revision of counted records: rows of before stay as they are, and the table goes again."""

import pytest

from rollout.store.database.migrations import downgrade, upgrade
from tests.migrations.test_ledger_form import filled
from tests.migrations.test_safety_tables import rows_by_table

__all__ = ["filled"]
BEFORE, AFTER = "0017", "0022"


@pytest.mark.slow
def test_only_a_table_is_added_and_it_goes_again(filled):
    upgrade(filled, BEFORE)
    before = rows_by_table(filled)
    upgrade(filled, AFTER)
    assert rows_by_table(filled) == {**before, "counted_records": 0}
    downgrade(filled, BEFORE)
    assert rows_by_table(filled) == before
