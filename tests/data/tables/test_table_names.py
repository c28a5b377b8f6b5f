"""A snapshot of table and column names: a rename needs a migration."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex

from rollout.data.tables.record_tables import APPEND_ONLY, complete_partial_indexes
from rollout.data.tables.tables import metadata


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


def test_partial_indexes_have_their_condition_on_both_engines():
    complete_partial_indexes()
    for dialect in (postgresql.dialect(), sqlite.dialect()):
        found = {
            index.name: str(CreateIndex(index).compile(dialect=dialect)).partition(" WHERE ")[2]
            for table in metadata.tables.values()
            for index in table.indexes
        }
        assert {name: condition for name, condition in found.items() if condition} == {
            "ix_cases_rollout_episode": "episode is not null",
            "ix_counted_units_newest": "track = 'gate'",
        }
