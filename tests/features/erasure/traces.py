"""Looks for a text in everything that a database stores."""

from pathlib import Path

from rollout.data.tables.tables import metadata


def find_traces(database, words):
    """Return the tables and columns that hold a text; every value is read."""
    places = []
    with database.begin_read() as transaction:
        for table in metadata.sorted_tables:
            for row in transaction.execute(table.select()).mappings():
                places += [
                    f"{table.name}.{name}" for name, value in row.items() if words in _read(value)
                ]
    return sorted(set(places))


def find_in_files(database, words):
    """Return the files of an SQLite database that hold a text."""
    file = Path(database.engine.url.database)
    files = [file, *file.parent.glob(f"{file.name}-*")]
    return [each.name for each in files if words.encode() in each.read_bytes()]


def _read(value):
    return value.decode("latin-1") if isinstance(value, bytes | memoryview) else str(value)
