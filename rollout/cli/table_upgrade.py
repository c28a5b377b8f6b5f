"""`rollout db upgrade`: create or upgrade the tables."""

import os

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    convert_store_errors,
)
from rollout.store.database.migrations import (
    find_head_revision,
    upgrade,
)


def upgrade_tables() -> None:
    """Create the tables, or upgrade them to this version of the program; all or nothing.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db).

    Example: `rollout db upgrade`
    """
    with print_refusals(), convert_store_errors():
        upgrade(os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL))
        typer.echo(f"tables are at revision {find_head_revision()}")
