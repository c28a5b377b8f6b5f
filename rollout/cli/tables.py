"""`rollout db` on existing tables: grant a role what it needs, print their revision."""

import os
from typing import Annotated

import typer

from rollout.cli.errors import print_refusals
from rollout.cli.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
)
from rollout.store.database.migrations import (
    find_head_revision,
    grant_privileges,
    load_current_revision,
)


def grant_role(
    role: Annotated[
        str,
        typer.Argument(help="PostgreSQL role that `rollout serve` connects as", metavar="ROLE"),
    ],
) -> None:
    """Grant a PostgreSQL role what the service needs, without ownership of the tables.

    The owner of a table can drop the triggers that keep it append-only, so the service should not
    own its tables. Create the role with PostgreSQL's tools, and run this after each upgrade.

    Example: `rollout db grant rollout_service`
    """
    with print_refusals(), convert_store_errors(), connect_database() as database:
        if database.engine.dialect.name == "sqlite":
            raise ValueError("SQLite has no roles: protect the file by its permissions instead")
        with database.begin_write() as transaction:
            grant_privileges(transaction, role)
    typer.echo(
        f"{role} can run the service: set ROLLOUT_DATABASE_URL with this role for `rollout serve`"
    )


def show_table_revision() -> None:
    """Print the revision of the tables; exit 1 if this program needs another.

    Example: `rollout db current`
    """
    with print_refusals(), convert_store_errors():
        table_revision = load_current_revision(
            os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
        )
    typer.echo(
        f"tables: {table_revision or 'none'}; needed by this program: {find_head_revision()}"
    )
    if table_revision != find_head_revision():
        typer.echo("run `rollout db upgrade`", err=True)
        raise typer.Exit(1)
