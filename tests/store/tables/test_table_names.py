"""A snapshot of table and column names: a rename needs a migration."""

from rollout.store.tables.append_only import APPEND_ONLY
from rollout.store.tables.tables import metadata


def test_tables_and_columns_keep_their_names(snapshot):
    found = {
        table.name: [column.name for column in table.columns] for table in metadata.sorted_tables
    }
    assert dict(sorted(found.items())) == snapshot


def test_indexes_and_constraints_keep_their_names(snapshot):
    found = [
        str(each.name)
        for table in metadata.sorted_tables
        for each in (*table.indexes, *table.constraints)
    ]
    assert sorted(found) == snapshot


def test_append_only_tables_are_tables():
    assert APPEND_ONLY.keys() <= metadata.tables.keys()
