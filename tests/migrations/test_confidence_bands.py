"""The revision of confidence bands: what was stored stays; back unless one has a band."""

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
BEFORE, AFTER = "0039", "0042"


@pytest.mark.slow
def test_what_was_stored_before_stays_without_bands(filled):
    upgrade(filled, BEFORE)
    before, rows = contents(filled), rows_by_table(filled)
    upgrade(filled, AFTER)
    assert (contents(filled), rows_by_table(filled)) == (before, rows)
    assert "band" in next(t for t in reflected(filled) if t.name == "counted_units").c
    downgrade(filled, BEFORE)
    assert (contents(filled), rows_by_table(filled)) == (before, rows)


@pytest.mark.parametrize("band", [0, None])
def test_the_program_before_would_ignore_the_floors_of_cells(url, band):
    upgrade(url, AFTER)
    (table,) = (table for table in reflected(url) if table.name == "counted_units")
    with closing(Database(url)) as database, database.begin_write() as transaction:
        transaction.execute(table.insert(), [row_of(table, 1) | {"band": band}])
    if band is None:
        downgrade(url, BEFORE)
        upgrade(url, AFTER)
    else:
        with pytest.raises(RuntimeError, match="1 counted units have a confidence band"):
            downgrade(url, BEFORE)
    with closing(Database(url)) as database, database.begin_read() as transaction:
        assert transaction.execute(text("select count(*) from counted_units")).scalar() == 1
