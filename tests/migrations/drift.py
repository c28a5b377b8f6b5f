"""What a database has other than the tables of this program."""

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from rollout.data.database.session import create_database_engine
from rollout.data.tables.tables import metadata


def find_drift(url: str) -> list[Any]:
    """Return the differences between a database and the tables of this program."""
    engine = create_database_engine(url)
    try:
        with engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), metadata))
    finally:
        engine.dispose()
