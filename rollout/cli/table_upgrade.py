"""`rollout db upgrade`: create or upgrade the tables."""

import os
from contextlib import closing
from typing import Annotated

import typer

from rollout.data.database.migrations import (
    check_newest,
    check_schema_current,
    finish_upgrade,
    load_current_revision,
    upgrade,
)
from rollout.data.database.session import Database
from rollout.terminal.local_database import (
    DATABASE_VARIABLE,
    DEFAULT_DATABASE_URL,
    convert_store_errors,
)
from rollout.terminal.remote import print_refusals


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
