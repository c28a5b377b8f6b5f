"""`rollout db upgrade`: create or upgrade the tables, and the form of the ledgers."""

import os
from datetime import UTC, datetime

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
)
from rollout.services.ledger.ledger_forms import change_forms
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
        with connect_database() as database:
            changed = change_forms(database, datetime.now(UTC))
        for name in changed:
            typer.echo(f"{name}: the ledger goes on in form 2")
