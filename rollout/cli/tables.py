"""`rollout db` on tables: create or upgrade them, grant a role its needs, print the revision."""

import os
from contextlib import closing
from typing import Annotated

import typer

from rollout.data.database.append_failures import StoreError
from rollout.data.database.migrations import (
    check_newest,
    check_schema_current,
    find_head_revision,
    find_schema_revision,
    finish_upgrade,
    grant_backup,
    grant_privileges,
    load_current_revision,
    upgrade,
)
from rollout.data.database.session import Database
from rollout.terminal.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    connect_database,
    convert_store_errors,
    open_unchecked_database,
)
from rollout.terminal.remote import print_refusals


def grant_role(
    role: Annotated[
        str,
        typer.Argument(help="PostgreSQL role that `rollout serve` connects as", metavar="ROLE"),
    ],
    is_backup: Annotated[
        bool,
        typer.Option(
            "--backup", help="the role takes backups instead: it reads all, writes nothing"
        ),
    ] = False,
) -> None:
    """Grant a PostgreSQL role what the service needs, without ownership of the tables.

    The owner of a table can drop the triggers that keep it append-only, so the service should not
    own its tables. Create the role with PostgreSQL's tools, and run this after each upgrade. A role
    that only takes backups gets `--backup`, once, by a role that may grant `pg_read_all_data`.

    Example: `rollout db grant rollout_service`
    """
    with print_refusals(), convert_store_errors(), connect_database() as database:
        if database.engine.dialect.name == "sqlite":
            raise ValueError("SQLite has no roles: protect the file by its permissions instead")
        with database.begin_write() as transaction:
            (grant_backup if is_backup else grant_privileges)(transaction, role)
    task, command = ("take backups", "db backup") if is_backup else ("run the service", "serve")
    typer.echo(
        f"{role} can {task}: set ROLLOUT_DATABASE_URL with this role for `rollout {command}`"
    )


def show_table_revision() -> None:
    """Print the revision of the tables; exit 1 if this program needs another.

    Example: `rollout db current`
    """
    with open_unchecked_database() as database:
        revision = find_schema_revision(database)
        typer.echo(f"tables: {revision or 'none'}; needed by this program: {find_head_revision()}")
        try:
            check_schema_current(database)
        except StoreError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from error


def upgrade_tables(
    is_last_step: Annotated[
        bool,
        typer.Option("--finish", help="all replicas are replaced: let no older program run again"),
    ] = False,
) -> None:
    """Create the tables, or upgrade them to this version of the program; all or nothing.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db). Replicas of the program
    before go on, and can be started again, until none has written for an hour or an admin finishes
    the upgrade. Then entries that they could not read are written.

    Example: `rollout db upgrade`, and when all replicas are replaced `rollout db upgrade --finish`
    """
    with print_refusals(), convert_store_errors():
        url = os.environ.get(DATABASE_VARIABLE, DEFAULT_DATABASE_URL)
        if is_last_step:
            _finish(url)
            return
        upgrade(url)
        typer.echo(f"tables are at revision {load_current_revision(url)}")


def _finish(url: str) -> None:
    with closing(Database(url)) as database:
        check_schema_current(database)
        check_newest(database)
        with database.begin_write() as transaction:
            finish_upgrade(transaction)
    typer.echo("the upgrade is finished: no older program works on these tables")
