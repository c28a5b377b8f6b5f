"""The revision of the safety tables: the program before works with it, and the way back is safe."""

from contextlib import closing

import pytest

from rollout.store.database.migrations import downgrade, load_current_revision, upgrade
from rollout.store.database.session import Database
from tests.migrations.test_field_words import reflected, row_of
from tests.migrations.test_ledger_form import filled

__all__ = ["filled"]
BEFORE, AFTER = "0020", "0017"
NEW = {"replica_heartbeats", "pending_stops", "damages"}


def rows_by_table(url):
    with closing(Database(url)) as database, database.begin_read() as transaction:
        return {
            table.name: len(transaction.execute(table.select()).all()) for table in reflected(url)
        }


@pytest.mark.slow
def test_only_tables_are_added_and_they_go_again(filled):
    upgrade(filled, BEFORE)
    before = rows_by_table(filled)
    upgrade(filled, AFTER)
    assert rows_by_table(filled) == {**before, **dict.fromkeys(NEW, 0)}
    downgrade(filled, BEFORE)
    assert rows_by_table(filled) == before


@pytest.mark.slow
@pytest.mark.parametrize("table", ["pending_stops", "damages"])
def test_there_is_no_way_back_while_a_stop_or_damage_is_in_force(filled, table):
    upgrade(filled, AFTER)
    (found,) = (one for one in reflected(filled) if one.name == table)
    with closing(Database(filled)) as database, database.begin_write() as transaction:
        transaction.execute(found.insert(), [row_of(found, 1)])
    with pytest.raises(RuntimeError, match="in force"):
        downgrade(filled, BEFORE)
    assert load_current_revision(filled) == AFTER
    with closing(Database(filled)) as database, database.begin_write() as transaction:
        transaction.execute(found.delete())
    downgrade(filled, BEFORE)
    assert load_current_revision(filled) == BEFORE
