"""The revision of outcomes' sources: rows of before have none; back unless one is no evidence."""

from contextlib import closing

import pytest
from sqlalchemy import text

from rollout.store.database.migrations import downgrade, upgrade
from rollout.store.database.session import Database
from tests.migrations.test_field_words import reflected, row_of
from tests.migrations.test_ledger_form import filled
from tests.migrations.test_record_senders import contents
from tests.migrations.test_safety_tables import rows_by_table

__all__ = ["filled"]
BEFORE, AFTER = "0037", "0038"


@pytest.mark.slow
def test_outcomes_of_before_count_as_they_did(filled):
    upgrade(filled, BEFORE)
    before, rows = contents(filled), rows_by_table(filled)
    assert before["outcomes"]
    upgrade(filled, AFTER)
    assert contents(filled)["outcomes"] == [
        {**row, "source_kind": None} for row in before["outcomes"]
    ]
    assert rows_by_table(filled) == rows
    downgrade(filled, BEFORE)
    assert contents(filled) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("outcomes", {"source_kind": "unnamed"}, "1 outcomes are no evidence"),
        ("counted_outcomes", {"source_fault": "own"}, "1 counted units are no evidence"),
        ("outcomes", {"source_kind": "account"}, ""),
    ],
)
def test_the_program_before_would_count_what_is_no_evidence(url, name, values, message):
    upgrade(url, AFTER)
    (table,) = (table for table in reflected(url) if table.name == name)
    row = row_of(table, 1) | {"source_kind": None, "source_fault": None}
    row = {key: value for key, value in row.items() if key in table.c} | values
    with closing(Database(url)) as database, database.begin_write() as transaction:
        transaction.execute(table.insert(), [row])
    if message:
        with pytest.raises(RuntimeError, match=message):
            downgrade(url, BEFORE)
    else:
        downgrade(url, BEFORE)
        upgrade(url, AFTER)
    with closing(Database(url)) as database, database.begin_read() as transaction:
        assert transaction.execute(text(f"select count(*) from {name}")).scalar() == 1  # noqa: S608
